"""The calls of fsspec that would write: each raises that the archive cannot be written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .errors import ReadOnly

T = TypeVar("T")
WRITING = (
    "copy",
    "cp",
    "cp_file",
    "delete",
    "makedir",
    "makedirs",
    "mkdir",
    "mkdirs",
    "move",
    "mv",
    "mv_file",
    "pipe",
    "pipe_file",
    "put",
    "put_file",
    "rename",
    "rm",
    "rm_file",
    "rmdir",
    "touch",
    "upload",
    "write_bytes",
    "write_text",
)
# Those that fsspec has as coroutines, too.
ALSO_ASYNC = (
    "copy",
    "cp_file",
    "makedirs",
    "mkdir",
    "mv_file",
    "pipe",
    "pipe_file",
    "put",
    "put_file",
    "rm",
    "rm_file",
)


def read_only() -> ReadOnly:
    """What is raised instead of writing."""
    return ReadOnly("The archive cannot be written to: copy what you need by get, and write there.")


def refuse_writes(filesystem: type[T]) -> type[T]:
    """Give a filesystem calls that refuse, in the place of those that write.

    Args:
        filesystem: a class of fsspec's.
    """
    for name in WRITING:
        setattr(filesystem, name, _refusing(name))
    for name in ALSO_ASYNC:
        setattr(filesystem, f"_{name}", _refusing_async(f"_{name}"))
    return filesystem


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001
        raise read_only()

    refuse.__name__, refuse.__doc__ = name, "Raise `ReadOnly`."
    return refuse


def _refusing_async(name: str) -> Callable[..., Any]:
    async def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001
        raise read_only()

    refuse.__name__, refuse.__doc__ = name, "Raise `ReadOnly`."
    return refuse
