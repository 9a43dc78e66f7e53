"""The signature of requests to Cytomine, as its Python client 4.3.0 makes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timezone
from email.utils import format_datetime


def signed(
    public_key: str,
    private_key: str,
    *,
    method: str = "GET",
    content_type: str = "",
    now: datetime | None = None,
) -> dict[str, str]:
    """The headers ``Date`` and ``Authorization`` of a request: HMAC-SHA1 over method, content type and date.

    Args:
        public_key: names the person.
        private_key: signs.
        method: of HTTP.
        content_type: as it is sent; empty if none is.
        now: the present time.
    """
    date = format_datetime(now or datetime.now(timezone.utc))
    text = f"{method}\n\n{content_type}\n{date}"
    digest = hmac.new(private_key.encode(), text.encode(), hashlib.sha1).digest()
    return {"Date": date, "Authorization": f"CYTOMINE {public_key}:{base64.b64encode(digest).decode()}"}
