"""What containers said last, without the secrets of their stack."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial

from ..blueprint.settings import StackSettings
from ..cluster.client import Kube
from ..cluster.secretstore import of_others
from ..common.redact import Redact, Redactor, by_looks, secret_values
from ..stack.model import Stack

_MOST = 50


@dataclass
class _Known:
    uid: str
    redact: Redact
    words: set[int] = field(default_factory=set)


class LastWords:
    """Reads a stack's Secrets when something new was said, and only then.

    Args:
        kube: the API server.
        settings: the administrator's settings.
    """

    def __init__(self, kube: Kube, settings: StackSettings) -> None:
        self._kube, self._settings = kube, settings
        self._known: dict[str, _Known] = {}

    def forget(self, name: str) -> None:
        """A stack is gone."""
        self._known.pop(name, None)

    async def of(self, stack: Stack, words: Hashable) -> Redact:
        """What takes the secrets out of what a stack's containers said.

        Args:
            stack: the stack.
            words: what is going to be shown, or what stands for it; nothing is read for words that were seen.

        Raises:
            KubeError: the Secrets cannot be read; nothing may be shown.
        """
        if not words:
            return by_looks
        known = self._known.get(stack.name)
        if known is None or known.uid != stack.uid or hash(words) not in known.words:
            redactor = Redactor(await self._values(stack))
            seen = known.words if known and known.uid == stack.uid and len(known.words) < _MOST else set()
            # Texts that are cut at both ends: by the kubelet, and by what is remembered of them.
            redact = partial(redactor, torn_start=True, torn_end=True)
            known = self._known[stack.name] = _Known(stack.uid, redact, {*seen, hash(words)})
        return known.redact

    async def _values(self, stack: Stack) -> set[str]:
        secrets, _ = await self._kube.list("Secret", labels=of_others(stack.name))
        if self._settings.app_engine_token_secret:
            secrets.append(await self._kube.get("Secret", self._settings.app_engine_token_secret) or {})
        return {value for secret in secrets for value in secret_values(secret.get("data"))}
