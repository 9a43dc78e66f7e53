"""The Kubernetes objects of the stand-in for LS Login."""

from __future__ import annotations

import base64
import json

import pytest

from dev import lslogin

ISSUER = "http://login.localhost:8000/oidc/"
CALLBACK = "http://hub.localhost:8000/hub/oauth_callback"
AFTER_LOGOUT = "http://hub.localhost:8000/hub/logged-out"
SECRET = "a-secret-of-this-test-only"


def test_the_cluster_objects_hold_the_secret_in_a_secret_alone_and_fit_restricted_pod_security():
    found = {
        o["kind"]: o
        for o in lslogin.objects(
            "cytomine", "localhost/x:1", ISSUER, [CALLBACK], [AFTER_LOGOUT], "hub", SECRET
        )
    }
    others = json.dumps([o for kind, o in found.items() if kind != "Secret"])
    assert SECRET not in others
    assert base64.b64encode(SECRET.encode()).decode() not in others
    assert SECRET in base64.b64decode(found["Secret"]["data"]["clients.json"]).decode()
    assert found["Ingress"]["spec"]["rules"][0]["host"] == "login.localhost"
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_an_issuer_without_its_slash_is_refused():
    with pytest.raises(ValueError, match="trailing slash"):
        lslogin.objects("cytomine", "localhost/x:1", ISSUER.rstrip("/"), [CALLBACK], [], "hub", SECRET)
