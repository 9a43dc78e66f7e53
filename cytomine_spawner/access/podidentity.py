"""Which pod of a stack asks: by the token that its kubelet gives it for this service alone.

The API server signs such tokens for one audience and one pod, and they last some minutes. They are checked with its public
keys, which every service account may read by default, and by whether the pod that they name is there.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt

from ..cluster.client import Kube
from ..stack.model import IMPORT_AUDIENCE

_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
# The API server changes its keys rarely; one that is not known is asked for this often at most, in seconds.
_KEEP, _PAUSE = 3600.0, 10.0


class Stranger(Exception):
    """It is no pod of ours; the text says why, for the log."""


class PodIdentity:
    """Tells pods by their tokens.

    Args:
        kube: the API server, and the namespace of the pods.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read = -_KEEP
        self._lock = asyncio.Lock()

    async def pod(self, token: str) -> dict[str, Any]:
        """The pod whose token this is, as the API server has it now.

        Raises:
            Stranger: it is none, or not for this service, or its pod is gone.
            KubeError: the API server does not answer.
        """
        claims = await self._claims(token)
        told = claims.get("kubernetes.io")
        pod = told.get("pod") if isinstance(told, dict) else None
        if not isinstance(told, dict) or not isinstance(pod, dict):
            raise Stranger("the token is bound to no pod")
        if told.get("namespace") != self._kube.namespace:
            raise Stranger("the token is of another namespace")
        name, uid = pod.get("name"), pod.get("uid")
        if not isinstance(name, str) or not name or not isinstance(uid, str) or not uid:
            raise Stranger("the token names no pod")
        found = await self._kube.get("Pod", name)
        meta = (found or {}).get("metadata") or {}
        # One of the same name may have taken its place.
        if not found or meta.get("uid") != uid or meta.get("deletionTimestamp"):
            raise Stranger("the token's pod is gone")
        return found

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid") or ""))
            return dict(
                jwt.decode(
                    token,
                    key.key,
                    # Never what the token says: a public key is no shared secret.
                    algorithms=[key.algorithm_name] if key.algorithm_name in _ALGORITHMS else _ALGORITHMS,
                    audience=IMPORT_AUDIENCE,
                    options={"require": ["exp", "aud"]},
                )
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise Stranger(f"the token does not hold ({type(error).__name__})") from None

    async def _key(self, name: str) -> jwt.PyJWK:
        async with self._lock:
            age = time.monotonic() - self._read
            if age >= _KEEP or (name not in self._keys and age >= _PAUSE):
                found = jwt.PyJWKSet.from_dict(await self._kube.signing_keys())
                self._keys = {str(key.key_id): key for key in found.keys}
                self._read = time.monotonic()
        if name not in self._keys:
            raise Stranger("the token is signed by a key that the API server does not know")
        return self._keys[name]
