"""Make the hub's Secret once: ``python -m cytomine_spawner.cluster.hubsecret --namespace NS --name NAME --key KEY …``.

The chart runs this before each install and upgrade. It creates the Secret or adds the keys that are missing, and never
changes a value that is there, so it may run any number of times, also several at once. Values are 32 random bytes as
hexadecimal digits; they are never printed. ``--apart NAME=KEY`` makes a key in a Secret of its own, for a pod that shall be
given nothing else; its value is the one that the hub's Secret has under this key from before, if any.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config

REQUEST_TIMEOUT = 10.0
"""Seconds for one call of the API server."""


class SecretsError(Exception):
    """The Secret could not be made; the text is one sentence that says why and what to do."""


async def ensure(
    api: Any,
    namespace: str,
    name: str,
    keys: Sequence[str],
    labels: Mapping[str, str] | None = None,
    *,
    known_by: str = "",
) -> list[str]:
    """Create the Secret, or add the keys that it lacks.

    Args:
        api: a ``CoreV1Api``.
        namespace: the Secret's namespace.
        name: the Secret's name.
        keys: the keys that it must have.
        labels: labels for a Secret that is created; one that exists keeps its own.
        known_by: a Secret from which the values of missing keys are taken where it has them.

    Returns:
        The keys that were made, in the order of ``keys``.

    Raises:
        SecretsError: others kept changing the Secret at the same time.
    """
    for _ in range(10):
        found = await _read(api, namespace, name)
        data = (found.data or {}) if found else {}
        missing = [key for key in dict.fromkeys(keys) if not data.get(key)]
        if found and not missing:
            return []
        before = await _read(api, namespace, known_by) if known_by else None
        known = (before.data or {}) if before else {}
        made = {key: known.get(key) or _random() for key in missing}
        try:
            if found is None:
                body = {
                    "metadata": {"name": name, "labels": dict(labels or {})},
                    "type": "Opaque",
                    "data": made,
                }
                await api.create_namespaced_secret(namespace, body, _request_timeout=REQUEST_TIMEOUT)
            else:
                # With its version: a key that someone else adds in between makes this a conflict, not an overwrite.
                body = {"metadata": {"resourceVersion": found.metadata.resource_version}, "data": made}
                await api.patch_namespaced_secret(
                    name,
                    namespace,
                    body,
                    _content_type="application/merge-patch+json",
                    _request_timeout=REQUEST_TIMEOUT,
                )
        except client.ApiException as error:
            if error.status == 409:
                continue
            raise
        return missing
    raise SecretsError(f"The Secret {name} changes all the time; stop what changes it and run this again.")


async def _read(api: Any, namespace: str, name: str) -> Any:
    """A Secret; None where there is none of this name."""
    try:
        return await api.read_namespaced_secret(name, namespace, _request_timeout=REQUEST_TIMEOUT)
    except client.ApiException as error:
        if error.status != 404:
            raise
        return None


def _random() -> str:
    return base64.b64encode(secrets.token_hex(32).encode()).decode()


async def ensure_patiently(api: Any, wait: float, *args: Any, **kwargs: Any) -> list[str]:
    """Like :func:`ensure`, but try again for ``wait`` seconds while the API server does not answer."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while True:
        try:
            return await ensure(api, *args, **kwargs)
        except (OSError, asyncio.TimeoutError, aiohttp.ClientError) as error:
            failure: Exception = error
        except client.ApiException as error:
            if error.status not in (429, 500, 502, 503, 504):
                raise
            failure = error
        if loop.time() > end:
            reason = getattr(failure, "reason", None) or type(failure).__name__
            raise SecretsError(
                f"The API server did not answer within {wait:g} s ({reason}); check the pod's network and NetworkPolicies."
            ) from failure
        await asyncio.sleep(min(2.0, wait / 10))


def _explain(error: Any, name: str, namespace: str) -> str:
    """What the API server's refusal means here."""
    if error.status == 403:
        return (
            f"The service account may not read or write the Secret {name} in {namespace}; apply the chart's Role for it, "
            "or make the Secret yourself and name it in secrets.existingSecret."
        )
    if error.status == 404:
        return f"The namespace {namespace} does not exist; create it first."
    if error.status == 422:
        return f"The Secret {name} in {namespace} cannot be changed (is it immutable?); add the missing keys by hand."
    return f"The API server refused the Secret {name} in {namespace}: {error.status} {error.reason}."


async def find_cluster() -> None:
    """Have clients speak to the cluster around this pod, or to that of the user's file."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config()


async def _run(options: argparse.Namespace) -> dict[str, list[str]]:
    await find_cluster()
    labels = dict(label.split("=", 1) for label in options.label)
    async with client.ApiClient() as connection:
        api = client.CoreV1Api(connection)
        where = (api, options.wait, options.namespace)
        made = {options.name: await ensure_patiently(*where, options.name, options.key, labels)}
        for name, key in options.apart:
            made[name] = await ensure_patiently(*where, name, [key], labels, known_by=options.name)
        return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if the Secret has all keys."""
    parser = argparse.ArgumentParser(
        prog="python -m cytomine_spawner.cluster.hubsecret", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--namespace", required=True, help="namespace of the Secret")
    parser.add_argument("--name", required=True, help="name of the Secret")
    parser.add_argument("--key", action="append", required=True, help="a key that it must have (repeat)")
    parser.add_argument(
        "--apart", action="append", default=[], help="NAME=KEY: a key in a Secret of its own (repeat)"
    )
    parser.add_argument("--label", action="append", default=[], help="NAME=VALUE for a new Secret (repeat)")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the API server")
    options = parser.parse_args(arguments)
    for label in options.label:
        if "=" not in label:
            parser.error(f"--label {label} is not NAME=VALUE")
    options.apart = [tuple(pair.partition("=")[::2]) for pair in options.apart]
    if not all(name and key for name, key in options.apart):
        parser.error("--apart takes NAME=KEY")
    try:
        made = asyncio.run(_run(options))
    except SecretsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    except config.ConfigException as error:
        print(f"No cluster to talk to ({error}); run this in a pod or set KUBECONFIG.", file=sys.stderr)  # noqa: T201
        return 1
    except client.ApiException as error:
        names = ", ".join([options.name, *(name for name, _ in options.apart)])
        print(_explain(error, names, options.namespace), file=sys.stderr)  # noqa: T201
        return 1
    for name, keys in made.items():
        what = f"made {', '.join(keys)}" if keys else "all keys were there"
        print(f"Secret {name} in {options.namespace}: {what}.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
