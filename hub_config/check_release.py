"""What ``helm test`` runs: the hub answers through the proxy, and its account may do what it needs and no more."""

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


async def rights(api: Any, namespace: str) -> list[str]:
    """One sentence for each right that differs from what it should be."""
    wrong = []
    for verb, resource, group, expected in RIGHTS:
        attributes = {"namespace": namespace, "verb": verb, "resource": resource, "group": group}
        body = {"spec": {"resourceAttributes": attributes}}
        review = await api.create_self_subject_access_review(body, _request_timeout=10)
        if bool(review.status.allowed) != expected:
            may = "may not" if expected else "may"
            wrong.append(f"The hub's account {may} {verb} {resource} in {namespace}.")
    return wrong


async def _rights_in_cluster(namespace: str) -> list[str]:
    config.load_incluster_config()
    async with client.ApiClient() as connection:
        return await rights(client.AuthorizationV1Api(connection), namespace)


def main() -> int:
    """Run the checks; 0 if all hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the hub's health address behind the proxy")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the hub")
    options = parser.parse_args()
    wrong = []
    reason = answers(options.url, options.wait)
    if reason:
        wrong.append(f"{options.url} does not answer ({reason}); read the logs of the hub and of the proxy.")
    wrong += asyncio.run(_rights_in_cluster(options.namespace))
    for sentence in wrong:
        print(sentence, file=sys.stderr)  # noqa: T201 - a command
    if not wrong:
        print("The hub answers through the proxy, and its account has the rights that it needs.")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
