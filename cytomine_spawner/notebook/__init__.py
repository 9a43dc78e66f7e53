"""What a notebook imports to work with Cytomine. Needs neither JupyterHub's server nor Kubernetes."""

from __future__ import annotations

from .connection import connect, environment, stacks, token
from .connection_service import StackInfo
from .errors import (
    CytomineError,
    CytomineUnreachable,
    KeysRefused,
    NoStack,
    ServiceUnreachable,
    StackFailed,
    StackHibernated,
    StackNotReady,
)

__all__ = [
    "CytomineError",
    "CytomineUnreachable",
    "KeysRefused",
    "NoStack",
    "ServiceUnreachable",
    "StackFailed",
    "StackHibernated",
    "StackInfo",
    "StackNotReady",
    "connect",
    "environment",
    "stacks",
    "token",
]
