"""The key with which a running service signs the tokens of its stacks."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cytomine_spawner.identity.keyring import Key
from tests.support.lab import Lab


def signing_key(lab: Lab) -> Key:
    """The key that the running service signs with: only the cluster's administrator can read it."""
    secret = lab.kube.get("-n", lab.namespace, "secret", "cytomine-identity-keys")
    assert secret
    oldest = json.loads(base64.b64decode(secret["data"]["keys.json"]))[-1]
    private = serialization.load_pem_private_key(oldest["private"].encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return Key.of(private, oldest["created"])
