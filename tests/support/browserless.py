"""Logging in at the hub the way a browser does, without a browser."""

from __future__ import annotations

import httpx
from bs4 import BeautifulSoup


class Loopback(httpx.HTTPTransport):
    """Sends requests for ``*.localhost`` to 127.0.0.1, as browsers do and resolvers may not."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        # another request, so that cookies and redirects go on from the address that was asked for
        sent = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1"),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return super().handle_request(sent)


def browserless() -> httpx.Client:
    """A client with cookies of its own that finds ``*.localhost``."""
    # No connection is kept: one that the proxy closed while a test waited would fail the next request.
    return httpx.Client(
        transport=Loopback(limits=httpx.Limits(max_keepalive_connections=0)),
        follow_redirects=True,
        timeout=30,
    )


def log_in(hub_url: str, user: str) -> httpx.Client:
    """A client that is logged in at the hub as one of LS Login's test users.

    Args:
        hub_url: the hub's public address.
        user: the test user's key.
    """
    client = browserless()
    page = client.get(f"{hub_url}/hub/oauth_login")
    page = choose(client, page, user)
    assert page.status_code == 200, (page.status_code, str(page.url), page.text[-2000:])
    return client


def choose(client: httpx.Client, page: httpx.Response, user: str) -> httpx.Response:
    """Choose a test user on LS Login's page and follow the way back to the hub."""
    soup = BeautifulSoup(page.text, "html.parser")
    button = soup.find(attrs={"value": user}) or soup.find(attrs={"data-user": user})
    assert button, f"LS Login's page offers no {user}: {page.url}\n{page.text[:2000]}"
    form = button.find_parent("form")
    data = {i["name"]: i.get("value", "") for i in form.find_all("input") if i.get("name")}
    if button.get("name"):
        data[button["name"]] = button["value"]
    return client.request(form.get("method", "get"), str(page.url.join(form["action"])), data=data)


def xsrf(client: httpx.Client, hub_url: str) -> dict[str, str]:
    """The header that JupyterHub asks of requests which change something."""
    host = httpx.URL(hub_url).host
    for cookie in client.cookies.jar:
        if (
            cookie.name == "_xsrf"
            and cookie.path.startswith("/hub")
            and host in (cookie.domain, cookie.domain.removesuffix(".local"))
        ):
            return {"X-XSRFToken": cookie.value or ""}
    raise AssertionError(f"no _xsrf cookie for {host}: {list(client.cookies.jar)}")
