"""Stand-in for Cytomine's core: who asks (signed tokens, API keys) and the admin sessions.

Tokens are always verified. Upstream reads the ``authorization`` parameter of some image calls without that;
the stand-in does not.
"""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import ClientError, web

from .database import Connection, every, next_id, one, transaction
from .errors import Broken, answer, page, refused
from .signing import credentials, signed
from .web import HTTP, LOG, SETTINGS, Handler

SESSION_SECONDS = 120 * 60
KEYS_SECONDS = 300
PUBLIC = ("/api/abstractimage/", "/api/imageinstance/", "/api/userannotation/")
MEMBERSHIP_SUFFIX = "@lifescience-ri.eu"


@dataclass(frozen=True)
class User:
    """The caller. ``roles`` are those stored; the ``is_*`` are what counts now."""

    id: int
    username: str
    name: str
    roles: frozenset[str]
    session: bool

    @property
    def is_super(self) -> bool:
        """A super administrator needs no admin session."""
        return "ROLE_SUPER_ADMIN" in self.roles

    @property
    def is_admin(self) -> bool:
        """Administrator now: the role counts only while an admin session is open."""
        return self.is_super or ("ROLE_ADMIN" in self.roles and self.session)

    @property
    def is_user(self) -> bool:
        """May create things."""
        return self.is_admin or "ROLE_USER" in self.roles

    @property
    def is_guest(self) -> bool:
        """May read; an ADMIN whose session is closed may not even that."""
        return self.is_user or "ROLE_GUEST" in self.roles


class Sessions:
    """Open admin sessions, in the memory of this process as upstream keeps them."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def open(self, username: str) -> None:
        """Open or prolong."""
        self._until[username] = time.monotonic() + SESSION_SECONDS

    def close(self, username: str) -> None:
        """Close."""
        self._until.pop(username, None)

    def is_open(self, username: str) -> bool:
        """Whether it is open."""
        return self._until.get(username, 0) > time.monotonic()


class KeySet:
    """The issuer's public keys, fetched when needed and again for an unknown key id."""

    def __init__(self) -> None:
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._at = float("-inf")

    async def key(self, app: web.Application, kid: str | None) -> jwt.PyJWK | None:
        """The key of that id, or None."""
        age = time.monotonic() - self._at
        if age > KEYS_SECONDS or (kid not in self._keys and age > 1):
            async with app[HTTP].get(app[SETTINGS].jwks) as response:
                data = await response.json(content_type=None)
            self._keys = {k.get("kid"): jwt.PyJWK(k) for k in data["keys"] if k.get("kty") == "RSA"}
            self._at = time.monotonic()
        return self._keys.get(kid)


SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)
KEYSET: web.AppKey[KeySet] = web.AppKey("keyset", KeySet)


class BadToken(Exception):
    """A bearer token that is not accepted."""


async def claims(app: web.Application, token: str) -> dict[str, Any]:
    """The claims of a verified token (RS256, issuer, expiry; no audience, as upstream)."""
    try:
        head = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise BadToken("Malformed token") from None
    try:
        key = await app[KEYSET].key(app, head.get("kid"))
    except (ClientError, TimeoutError, ValueError, KeyError) as error:
        LOG.warning("no keys from the issuer at %s: %s", app[SETTINGS].jwks, error)
        raise BadToken("Couldn't retrieve remote JWK set") from None
    if key is None or head.get("alg") != "RS256":
        raise BadToken("Signed JWT rejected: Another algorithm expected, or no matching key(s) found")
    try:
        options: Any = {"verify_aud": False, "require": ["exp"]}
        return jwt.decode(token, key, ["RS256"], options, issuer=app[SETTINGS].issuer, leeway=60)
    except jwt.InvalidSignatureError:
        raise BadToken("Signed JWT rejected: Invalid signature") from None
    except jwt.PyJWTError as error:
        raise BadToken(str(error)) from None


async def load(conn: Connection, sessions: Sessions, **where: Any) -> User | None:
    """The user of that id or username."""
    column, wanted = next(iter(where.items()))
    row = await one(
        conn, f"SELECT id, username, name FROM sec_user WHERE {column} = %s AND deleted IS NULL", wanted
    )
    if row is None:
        return None
    roles = await every(
        conn,
        "SELECT r.authority FROM sec_user_sec_role ur JOIN sec_role r ON r.id = ur.sec_role_id WHERE sec_user_id = %s",
        row["id"],
    )
    names = frozenset(r["authority"] for r in roles)
    return User(row["id"], row["username"], row["name"], names, sessions.is_open(row["username"]))


async def by_key(request: web.Request, conn: Connection) -> User | None:
    """The caller by API key: only enabled users have a way in."""
    pair = credentials(request)
    if pair is None:
        return None
    row = await one(conn, "SELECT id, private_key FROM sec_user WHERE public_key = %s AND enabled", pair[0])
    if row is None or not row["private_key"] or not signed(request, pair[1], row["private_key"]):
        return None
    return await load(conn, request.app[SESSIONS], id=row["id"])


async def by_token(app: web.Application, conn: Connection, data: dict[str, Any]) -> User | None:
    """The caller by verified claims; the first token of an unknown user makes user, keys and storage."""
    sessions = app[SESSIONS]
    username, name = data.get("preferred_username"), data.get("name")
    try:
        reference = str(uuid.UUID(str(data.get("sub"))))
    except ValueError:
        raise Broken("the token's sub is no UUID") from None
    if not username or name is None:
        raise Broken("the token lacks preferred_username or name")
    wanted = (data.get("resource_access") or {}).get("core", {}).get("roles") or []
    role = next((f"ROLE_{r}" for r in ("ADMIN", "USER", "GUEST") if r in wanted), "ROLE_GUEST")
    await conn.execute("SELECT pg_advisory_xact_lock(7071, hashtext(%s))", (username,))
    row = await one(conn, "SELECT id, username FROM sec_user WHERE reference = %s", reference)
    if row is None:
        row = await one(
            conn,
            "UPDATE sec_user SET reference = %s WHERE username = %s AND reference IS NULL RETURNING id, username",
            reference,
            username,
        )
    fresh = row is None
    if row is None:
        row = await _create(conn, reference, data)
    before = await load(conn, sessions, id=row["id"])
    if before and "ROLE_ADMIN" in before.roles | ({role} if fresh else set()):
        sessions.open(row["username"])
    if before and not before.is_super and before.roles != {role}:
        await _set_role(conn, row["id"], role)
    if row["username"].endswith(MEMBERSHIP_SUFFIX):
        await _sync_memberships(conn, row["id"], data.get("projects") or [])
    return await load(conn, sessions, id=row["id"])


async def _create(conn: Connection, reference: str, data: dict[str, Any]) -> dict[str, Any]:
    user, storage = await next_id(conn), await next_id(conn)
    username = data["preferred_username"]
    await conn.execute(
        """INSERT INTO sec_user (id, username, name, firstname, lastname, email, reference, public_key, private_key,
           enabled, updated) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, true, now())""",
        (
            *(user, username, data["name"], data.get("given_name", ""), data.get("family_name", "")),
            *(data.get("email"), reference, str(uuid.uuid4()), str(uuid.uuid4())),
        ),
    )
    await conn.execute(
        "INSERT INTO storage (id, user_id, name, updated) VALUES (%s, %s, %s, now())",
        (storage, user, f"{username} storage"),
    )
    LOG.info("user %s made on first login", user)
    return {"id": user, "username": username}


async def _set_role(conn: Connection, user: int, role: str) -> None:
    await conn.execute("DELETE FROM sec_user_sec_role WHERE sec_user_id = %s", (user,))
    await conn.execute(
        """INSERT INTO sec_user_sec_role (id, sec_user_id, sec_role_id, updated)
           SELECT %s, %s, id, now() FROM sec_role WHERE authority = %s""",
        (await next_id(conn), user, role),
    )


async def _sync_memberships(conn: Connection, user: int, projects: list[str]) -> None:
    # Upstream takes such users out of every project that the token does not name.
    await conn.execute(
        """DELETE FROM project_member m USING project p
           WHERE p.id = m.project_id AND m.user_id = %s AND p.name <> ALL(%s)""",
        (user, projects),
    )
    await conn.execute(
        """INSERT INTO project_member (project_id, user_id) SELECT id, %s FROM project WHERE name = ANY(%s)
           ON CONFLICT DO NOTHING""",
        (user, projects),
    )


def bearer(request: web.Request) -> str | None:
    """The token of the header, or of the parameters ``auth`` and ``Authorization``."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Bearer":
        return rest.strip()
    text = request.query.get("auth") or request.query.get("Authorization")
    return text.removeprefix("Bearer ").strip() if text else None


async def token_user(request: web.Request) -> User | None:
    """The user whom the verified token of the parameter ``authorization`` names, or None."""
    text = request.query.get("authorization", "").removeprefix("Bearer ").strip()
    if not text:
        return None
    try:
        data = await claims(request.app, text)
    except BadToken as error:
        raise Broken(f"authorization parameter: {error}") from None
    async with transaction(request) as conn:
        return await load(conn, request.app[SESSIONS], username=data.get("preferred_username"))


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the caller into ``request["user"]`` (None on the paths that upstream leaves open)."""
    request["user"] = None
    token = bearer(request)
    if token is not None:
        try:
            data = await claims(request.app, token)
        except BadToken as error:
            text = f'Bearer error="invalid_token", error_description="An error occurred while attempting to decode the Jwt: {error}"'
            text += ', error_uri="https://tools.ietf.org/html/rfc6750#section-3.1"'
            return web.Response(status=401, headers={"WWW-Authenticate": text})
        async with transaction(request) as conn:
            request["user"] = await by_token(request.app, conn, data)
    elif credentials(request):
        async with transaction(request) as conn:
            request["user"] = await by_key(request, conn)
    if request["user"] is None and _closed(request.path):
        return page(401)
    return await handler(request)


def _closed(path: str) -> bool:
    if path.startswith("/session/"):
        return True
    upload = path.startswith("/api/uploadedfile/") and path.endswith("/download")
    return path.startswith("/api/") and not path.startswith(PUBLIC) and not upload


def caller(request: web.Request) -> User:
    """The caller; a call without one on an open path is a server error upstream."""
    user: User | None = request["user"]
    if user is None:
        raise Broken("no caller")
    return user


def _info(user: User, status: int = 200) -> web.Response:
    admin, plain = "ROLE_ADMIN" in user.roles, "ROLE_USER" in user.roles
    flags = {"admin": admin, "user": plain, "guest": "ROLE_GUEST" in user.roles}
    flags |= {"adminByNow": user.is_admin, "userByNow": plain, "guestByNow": flags["guest"]}
    return answer(flags, status)


def _cookie(request: web.Request, response: web.Response) -> web.Response:
    if "JSESSIONID" not in request.cookies:
        response.set_cookie("JSESSIONID", uuid.uuid4().hex.upper(), path="/", httponly=True)
    return response


async def session_info(request: web.Request) -> web.Response:
    """GET /session/admin/info.json."""
    return _cookie(request, _info(caller(request)))


async def session_switch(request: web.Request) -> web.Response:
    """GET /session/admin/{open,close}.json."""
    user = caller(request)
    if "ROLE_ADMIN" not in user.roles:
        return _cookie(request, refused(403, "You are not an admin!").response())
    sessions = request.app[SESSIONS]
    (sessions.open if request.match_info["way"] == "open" else sessions.close)(user.username)
    now = User(user.id, user.username, user.name, user.roles, sessions.is_open(user.username))
    return _cookie(request, _info(now))


ROUTES = [
    ("GET", "/session/admin/info.json", session_info),
    ("GET", "/session/admin/{way:open|close}.json", session_switch),
]
