"""What ``helm test`` runs: the hub answers through the proxy, and its account may do what it needs and no more.

It needs rights where the notebooks are. In a namespace of its own the hub asks for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from kubernetes_asyncio import client, config

# (verb, resource, API group, whether the hub's account may)
RIGHTS = [
    ("create", "pods", "", True),
    ("list", "pods", "", True),
    ("watch", "pods", "", True),
    ("delete", "pods", "", True),
    ("create", "persistentvolumeclaims", "", True),
    ("list", "events", "", True),
    ("get", "secrets", "", False),
    ("list", "secrets", "", False),
    ("create", "deployments", "apps", False),
    ("create", "rolebindings", "rbac.authorization.k8s.io", False),
]

# What its account may not do where the hub's own Secrets are.
RIGHTS_OF_NOBODY = [(verb, resource, group, False) for verb, resource, group, _ in RIGHTS] + [
    ("patch", "secrets", "", False),
    ("list", "cytominestacks", "cytomine-spawner.org", False),
]


def answers(url: str, wait: float) -> str:
    """Wait until a URL answers 200; the reason why it does not, or nothing."""
    end = time.monotonic() + wait
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the chart's own address
                if answer.status == 200:
                    return ""
                reason = f"status {answer.status}"
        except urllib.error.HTTPError as error:
            reason = f"status {error.code}"
        except OSError as error:
            reason = str(getattr(error, "reason", error))
        if time.monotonic() > end:
            return reason
        time.sleep(1)


async def rights(api: Any, namespace: str, expectations: Any = RIGHTS) -> list[str]:
    """One sentence for each right that differs from what it should be."""
    wrong = []
    for verb, resource, group, expected in expectations:
        attributes = {"namespace": namespace, "verb": verb, "resource": resource, "group": group}
        body = {"spec": {"resourceAttributes": attributes}}
        review = await api.create_self_subject_access_review(body, _request_timeout=10)
        if bool(review.status.allowed) != expected:
            may = "may not" if expected else "may"
            wrong.append(f"The hub's account {may} {verb} {resource} in {namespace}.")
    return wrong


async def all_rights(api: Any, namespace: str, hub_namespace: str) -> list[str]:
    """The same for the notebooks' namespace and, where it is another one, the hub's own."""
    wrong = await rights(api, namespace)
    if hub_namespace != namespace:
        wrong += await rights(api, hub_namespace, RIGHTS_OF_NOBODY)
    return wrong


async def _rights_in_cluster(namespace: str, hub_namespace: str) -> list[str]:
    config.load_incluster_config()
    async with client.ApiClient() as connection:
        return await all_rights(client.AuthorizationV1Api(connection), namespace, hub_namespace)


def main() -> int:
    """Run the checks; 0 if all hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the hub's health address behind the proxy")
    parser.add_argument("--namespace", required=True, help="of the notebooks")
    parser.add_argument("--hub-namespace", required=True, help="of the hub")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the hub")
    options = parser.parse_args()
    wrong = []
    reason = answers(options.url, options.wait)
    if reason:
        wrong.append(f"{options.url} does not answer ({reason}); read the logs of the hub and of the proxy.")
    wrong += asyncio.run(_rights_in_cluster(options.namespace, options.hub_namespace))
    for sentence in wrong:
        print(sentence, file=sys.stderr)  # noqa: T201 - a command
    if not wrong:
        print("The hub answers through the proxy, and its account has the rights that it needs.")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
