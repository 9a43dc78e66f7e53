"""The passwords and keys of a stack, made once."""

from __future__ import annotations

import base64
import secrets
import uuid


def generate() -> dict[str, str]:
    """New values for every key of a stack's Secret. Letters and digits only: they go into SQL and URLs."""
    return {
        "postgis-password": secrets.token_hex(24),
        "mongo-password": secrets.token_hex(24),
        "image-server-public-key": str(uuid.uuid4()),
        "image-server-private-key": str(uuid.uuid4()),
        # core decodes it and wants 256 bits or more
        "jwt-secret": base64.b64encode(secrets.token_bytes(64)).decode(),
        "meilisearch-key": secrets.token_hex(24),
        "app-engine-db-password": secrets.token_hex(24),
        "oidc-client-secret": secrets.token_hex(32),
        # oauth2-proxy takes 16, 24 or 32 bytes
        "oauth2-cookie-secret": secrets.token_hex(16),
    }
