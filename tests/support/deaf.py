"""Starts a program that hears nothing of the machine's network interfaces: ``python deaf.py PROGRAM ARGUMENT...``.

Chromium cuts requests that are on their way (ERR_NETWORK_CHANGED) whenever an interface of the machine gets or loses an
address, and on a node each pod that comes or goes has one. It asks for that by a netlink socket, and does without
where there is none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from pathlib import Path

# The number of the call socket().
_SOCKET = {"x86_64": 41, "aarch64": 198}
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_REFUSE, _ALLOW = 0x00050000 | errno.EAFNOSUPPORT, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def refuse_netlink() -> None:
    """Have the kernel refuse netlink sockets to this process and all that it starts, where we know how."""
    number = _SOCKET.get(platform.machine())
    if number is None:
        return
    steps = [
        (_LOAD, 0, 0, 0),  # the call's number
        (_IF_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),  # its first argument
        (_IF_EQUAL, 0, 1, socket.AF_NETLINK),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(text))
    kernel = ctypes.CDLL(None, use_errno=True)
    # Without the first the second is for root only.
    if kernel.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or kernel.prctl(
        _SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter")


def launcher(folder: Path, program: str) -> Path:
    """A script that starts a program so.

    Args:
        folder: where it is put.
        program: the path.
    """
    script = folder / Path(program).name
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" "{program}" "$@"\n')
    script.chmod(0o755)
    return script


if __name__ == "__main__":
    refuse_netlink()
    os.execv(sys.argv[1], sys.argv[1:])
