"""Addresses of folders in object storage and on the web. Needs no package, so that settings can be read anywhere."""

from __future__ import annotations

from urllib.parse import urlsplit

# What the names of the archive's datasets begin with.
SCHEME = "sda://"

# What obstore speaks, in the place of packages that want other versions of what is here already.
STORES = ("abfs", "abfss", "az", "azure", "gcs", "gs", "s3", "s3a")


def check(url: str) -> str:
    """A URL of a folder in object storage or at a web address.

    Raises:
        ValueError: it is none, with what it should look like.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", *STORES) or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"{without_secrets(url)!r} is no address of a folder: it looks like s3://bucket/folder or https://host/folder"
        )
    if "::" in url:
        raise ValueError(
            f"{without_secrets(url)!r} names several places in one, by ::, and a dataset is in one folder"
        )
    if "@" in parts.netloc:
        raise ValueError(f"{without_secrets(url)} is given with credentials: put them into a Secret")
    return url


def without_secrets(url: str) -> str:
    """A URL for people: without a name, a password and a query, which may sign it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    if not parts.scheme:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
