"""The part of the spawner that knows the Bigpicture archive: which datasets it grants a user, and how notebooks find it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from traitlets import Bool, Float, Integer, TraitError, Unicode, validate

from ..common.storageurls import SCHEME
from ..common.usertokens import NoToken, TokenSource
from ..common.waiting import within
from .choices import ChoicesSpawner
from .options.stack import StackPart

# The longest name that a stack can hold.
_LONGEST = 255
# So long is an archive not asked again that did not answer, in seconds: who sends a form need not wait once more.
_TROUBLE_SECONDS = 10.0
_KNOWN = 10_000


@dataclass(frozen=True)
class Granted:
    """What the archive grants a person.

    Attributes:
        datasets: the ids of the datasets.
        trouble: why it is not known, as a sentence; "" if it is.
    """

    datasets: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def parts(self) -> tuple[StackPart, ...]:
        """The datasets as the form shows them."""
        named = ((f"{SCHEME}{quote(dataset, safe='')}", dataset) for dataset in self.datasets)
        return tuple(StackPart(name, title) for name, title in named if len(name) <= _LONGEST)


class ArchiveSpawner(ChoicesSpawner):
    """Tells notebooks where the archive is, and asks it for the datasets that a user's visas grant."""

    archive_url = Unicode(
        "",
        help="""
        Address of the Bigpicture archive, or of another sensitive data archive: `https://download.bp.nbis.se`.

        Notebooks then read it by `sda://` without more ado, and the options offer the datasets that the person's visas
        grant. Needs `LSLoginAuthenticator.archive_tokens`. Empty: there is none.
        """,
    ).tag(config=True)

    archive_issuer = Unicode(
        "",
        help="Who issues the tokens, for notebooks that explain an empty list of datasets. Empty: LS Login.",
    ).tag(config=True)

    archive_allow_http = Bool(
        False,
        help="""
        Let tokens travel unencrypted to `archive_url`. For an archive within the cluster, in trials only.
        """,
    ).tag(config=True)

    archive_timeout = Float(
        5.0,
        min=0.1,
        help="""
        Seconds that the archive has to say which datasets it grants. Then the options are shown without them. Keep it below
        `JupyterHub.tornado_settings["slow_spawn_timeout"]` (10), or programs are told of a refused choice too late.
        """,
    ).tag(config=True)

    archive_cache = Integer(
        60,
        min=0,
        help="Seconds that the archive's word on a person's datasets is believed.",
    ).tag(config=True)

    _granted = Granted()
    # By user: when it was learnt, for how long it holds, and what.
    _known: dict[str, tuple[float, float, Granted]] = {}

    @validate("archive_url")
    def _check_archive_url(self, proposal: Any) -> str:
        url = str(proposal.value).rstrip("/")
        if url and not url.startswith(("https://", "http://")):
            raise TraitError(
                f"CytomineSpawner.archive_url is {url!r}; it must be an address such as https://download.example.org"
            )
        return url

    def get_env(self) -> dict[str, Any]:
        """KubeSpawner's environment, with where the archive is: nothing secret, the token is asked of the hub."""
        env: dict[str, Any] = super().get_env()
        if self.archive_url:
            env.setdefault("SDA_URL", self.archive_url)
            if self.archive_issuer:
                env.setdefault("SDA_ISSUER", self.archive_issuer)
            if self.archive_allow_http:
                env.setdefault("SDA_ALLOW_HTTP", "1")
        return env

    async def _learn(self, chosen: object = None) -> None:
        """Find out which datasets the archive grants; takes no longer than `archive_timeout`, never raises."""
        if not self.archive_url or (chosen is not None and SCHEME not in str(chosen)):
            return
        now, name = time.monotonic(), f"{self.archive_url} {self.user.name}"
        known = self._known.get(name)
        if known is None or now - known[0] >= known[1]:
            granted = await self._ask_archive()
            life = min(_TROUBLE_SECONDS, self.archive_cache) if granted.trouble else self.archive_cache
            self._known.pop(name, None)
            self._known[name] = known = (time.monotonic(), float(life), granted)
            while len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
        self._granted = known[2]

    async def _ask_archive(self) -> Granted:
        tokens = getattr(self.authenticator, "archive", None)
        if not isinstance(tokens, TokenSource):
            return Granted(
                trouble="The archive's datasets cannot be shown, as this hub keeps no tokens of LS Login."
            )
        try:
            found = await within(self._listed(tokens), self.archive_timeout)
        except NoToken as none:
            return Granted(trouble=f"The archive's datasets cannot be shown. {none}")
        except asyncio.TimeoutError:
            self.log.warning("The archive %s did not answer in %s s", self.archive_url, self.archive_timeout)
        except Exception as error:
            # Its sentence names no token.
            self.log.warning("The archive %s did not tell its datasets: %s", self.archive_url, error)
        else:
            return Granted(tuple(found))
        return Granted(
            trouble="The archive's datasets cannot be shown, as it does not answer at the moment. Reload the page to try again."
        )

    async def still_granted(self, datasets: Sequence[str]) -> tuple[list[str] | None, str]:
        """Which of some datasets the person is granted now; takes no longer than `archive_timeout`, never raises.

        An archive that does not reach LS Login lists less, and says nothing of it. What it does not list therefore counts as
        not granted only if LS Login answers, too, and tells of no visa for it.

        Args:
            datasets: as they are called in the options.

        Returns:
            The datasets; None if it cannot be known, and why, as half a sentence.
        """
        tokens = getattr(self.authenticator, "archive", None)
        if not self.archive_url or not isinstance(tokens, TokenSource):
            return None, "this hub knows no archive, or keeps no tokens of LS Login"
        ids = {name: unquote(name.removeprefix(SCHEME)) for name in datasets}

        async def look() -> tuple[list[str] | None, str]:
            # Loaded where there is an archive only.
            from ..archive.explain import doubt

            listed = await self._listed(tokens)
            missing = [dataset for dataset in ids.values() if dataset not in listed]
            if missing:
                token = (await tokens.of(self.user)).value
                claims = await self.authenticator.token_to_user(
                    {"access_token": token, "token_type": "Bearer"}
                )
                if trouble := doubt(claims.get("ga4gh_passport_v1"), missing):
                    return None, trouble
            return [name for name, dataset in ids.items() if dataset in listed], ""

        try:
            return await within(look(), self.archive_timeout)
        except NoToken as none:
            if none.passing:
                return None, "LS Login does not answer at the moment"
            return (
                None,
                "the hub has no valid login of the owner with LS Login, who has to sign in to the hub anew",
            )
        except asyncio.TimeoutError:
            self.log.warning("The archive %s did not answer in %s s", self.archive_url, self.archive_timeout)
        except Exception as error:
            # Its sentence names no token.
            self.log.warning("What the archive %s grants could not be found out: %s", self.archive_url, error)
        return None, "the archive or LS Login does not answer at the moment"

    async def _listed(self, tokens: TokenSource) -> list[str]:
        # Loaded where there is an archive only: they bring cryptography with them.
        from ..archive.api import detect
        from ..archive.http import Http

        http = Http(
            self.archive_url,
            _OfUser(tokens, self.user),
            self.archive_timeout,
            self.archive_timeout,
            1,
            self.archive_allow_http,
        )
        try:
            return await (await detect(http)).datasets()
        finally:
            await http.close()


class _OfUser:
    """A user's tokens, as the requests to the archive ask for them."""

    def __init__(self, tokens: TokenSource, user: Any) -> None:
        self._tokens, self._user = tokens, user

    async def current(self) -> str:
        """The token to use now."""
        return (await self._tokens.of(self._user)).value

    async def renew(self, refused: str) -> str:
        """Another token, as the archive does not accept this one."""
        return (await self._tokens.of(self._user, hashlib.sha256(refused.encode()).hexdigest())).value
