"""The archive as a folder, for programs that need real paths: FUSE, by mfusepy and the system's libfuse. Read-only."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import ArchiveError
from .file import SdaFile
from .filesystem import SdaFileSystem
from .paths import split

DEVICE = Path("/dev/fuse")
# What the kernel may remember of names and sizes, in seconds: a dataset does not change while it is read.
REMEMBER = 60
STARTING = 60.0


class CannotMount(ArchiveError):
    """This machine, or this pod, does not let a folder be mounted."""


class Files:
    """What the kernel asks for, answered out of the archive.

    Args:
        fs: the archive.
        root: the path of the dataset that is mounted, or nothing for all of them.
        say: told why something failed, once for each sentence: the kernel takes but a number.

    Attributes:
        started: whether it was mounted.
    """

    use_ns = True

    def __init__(self, fs: SdaFileSystem, root: str, say: Callable[[str], object]) -> None:
        self._fs, self._root, self._tell = fs, root, say
        self._open: dict[int, SdaFile] = {}
        self._numbers = itertools.count(1)
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._since = time.time_ns()
        self.started = False

    def init(self, path: str) -> None:  # noqa: ARG002
        """The kernel has mounted it."""
        self.started = True

    def _path(self, path: str) -> str:
        return f"{self._root}{path}".strip("/")

    def _failed(self, error: OSError) -> OSError:
        """What is raised: with a number for the kernel; people are told in words."""
        number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO)
        # Programs look for files that are not there all the time.
        if number != errno.ENOENT:
            with self._lock:
                new = str(error) not in self._said and len(self._said) < 1000
                self._said.add(str(error))
            if new:
                self._tell(str(error))
        return OSError(number, os.strerror(number))

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:  # noqa: ARG002
        """What ``stat`` shows of a path."""
        try:
            entry = self._fs.info(self._path(path))
        except OSError as error:
            raise self._failed(error) from None
        is_file = entry["type"] == "file"
        return {
            "st_mode": stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o555,
            "st_nlink": 1 if is_file else 2,
            "st_size": int(entry["size"] or 0),
            "st_blocks": -(-int(entry["size"] or 0) // 512),
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
            **dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), self._since),
        }

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        """The names in a folder."""
        try:
            found = self._fs.ls(self._path(path), detail=False)
        except OSError as error:
            raise self._failed(error) from None
        return [".", "..", *(name.rpartition("/")[2] for name in found)]

    def open(self, path: str, fi: Any) -> int:
        """Open a file; its number goes into ``fi``."""
        if fi.flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        try:
            listed = self._fs.info(self._path(path))["size"]
            file = self._fs._open(self._path(path))
        except OSError as error:
            raise self._failed(error) from None
        # What an edit list cuts off is known once the file was opened. The kernel believes the size that it was told before, and
        # would fill up what is missing with zeros, unless it is to keep nothing of the file.
        fi.direct_io = file.size != listed
        with self._lock:
            fi.fh = next(self._numbers)
            self._open[fi.fh] = file
        return 0

    def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:  # noqa: ARG002
        """Bytes of an open file, for several threads at a time."""
        file = self._open[fi.fh]
        stop = min(offset + size, file.size)
        try:
            return file._fetch_range(offset, stop) if offset < stop else b""
        except OSError as error:
            raise self._failed(error) from None

    def release(self, path: str, fi: Any) -> int:  # noqa: ARG002
        """Close a file."""
        with self._lock:
            self._open.pop(fi.fh, None)
        return 0

    def statfs(self, path: str) -> dict[str, int]:  # noqa: ARG002
        """No room, and names as long as Linux takes them."""
        return {"f_bsize": 65536, "f_frsize": 65536, "f_namemax": 255, "f_flag": 1}


def is_root() -> bool:
    """Whether libfuse mounts by itself, without fusermount3."""
    return os.geteuid() == 0


def ready(folder: Path) -> None:
    """Find out whether something can be mounted at a folder; it is made where it is missing.

    Raises:
        CannotMount: with what is missing, and who can help.
    """
    pod = "In a pod, an administrator must grant the device /dev/fuse and the right to mount. Without it sda:// in Python, and sda get, work all the same."
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except FileNotFoundError:
        raise CannotMount(f"Nothing can be mounted here: there is no {DEVICE}. {pod}") from None
    except OSError as error:
        raise CannotMount(
            f"Nothing can be mounted here: {DEVICE} cannot be opened ({error.strerror}). {pod}"
        ) from None
    if not is_root() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        raise CannotMount(
            "Nothing can be mounted here: fusermount3 is missing. Install your system's fuse3, or ask an administrator."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CannotMount(f"{folder} is not empty: name a folder that is, or a new one.")
    except FileExistsError:
        raise CannotMount(f"{folder} is no folder: name one that is empty, or a new one.") from None
    except OSError as error:
        if isinstance(error, CannotMount):
            raise
        # Of a mount whose program was killed nothing is left but its place.
        cure = f"End it by: fusermount3 -u {folder}" if error.errno == errno.ENOTCONN else "Name another."
        raise CannotMount(f"{folder} cannot be used ({error.strerror}). {cure}") from None


def serve(
    fs: SdaFileSystem, path: str, folder: Path, say: Callable[[str], object], others: bool = False
) -> None:
    """Mount a dataset, or all, until a signal comes or the folder is unmounted.

    Args:
        fs: the archive.
        path: of a dataset or a folder in one; nothing for all datasets.
        folder: where to.
        say: told why something failed.
        others: whether other users of this machine may read it.

    Raises:
        CannotMount: this machine does not let it.
        ArchiveError: the archive does not give it.
    """
    ready(folder)
    mfusepy = _library()
    if fs.info(path)["type"] != "directory":
        raise CannotMount(f"{path} is a file: name its dataset, or a folder in it.")
    if not split(path)[0]:
        fs.ls("")  # what is wrong with the token is said now, not to the first who looks

    class Operations(Files, mfusepy.Operations):  # type: ignore[misc,name-defined]
        pass

    options: dict[str, Any] = {"allow_other": True} if others else {}
    operations = Operations(fs, path, say)
    try:
        mfusepy.FUSE(
            operations,
            str(folder),
            raw_fi=True,
            foreground=True,
            ro=True,
            nosuid=True,
            nodev=True,
            fsname="sda",
            subtype="sda",
            default_permissions=True,
            attr_timeout=REMEMBER,
            entry_timeout=REMEMBER,
            **options,
        )
    except RuntimeError as error:
        if operations.started:
            return  # libfuse calls the end by a signal an error, too
        raise CannotMount(
            f"{folder} could not be mounted (error {error}; libfuse has said why above, if it knew). In a pod the right to mount "
            "may be missing: ask an administrator."
        ) from None


def _library() -> Any:
    try:
        import mfusepy
    except ImportError:
        raise CannotMount(
            "Nothing can be mounted here: mfusepy is missing. Install it, for instance by pip install "
            "'cytomine-spawner[mount]'."
        ) from None
    except OSError:
        raise CannotMount(
            "Nothing can be mounted here: libfuse is missing. Install your system's fuse3, or ask an administrator."
        ) from None
    return mfusepy


def detach(arguments: Sequence[str], folder: Path) -> None:
    """Run the command in the background, and come back when the folder is mounted.

    Threads do not live on in a forked child, so it is another process from its beginning.

    Args:
        arguments: of the command ``sda``, with ``--foreground``.
        folder: what it mounts.

    Raises:
        CannotMount: it ended instead; with what it said.
    """
    ready(folder)
    _library()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(  # noqa: S603 - this program, from a list
            [sys.executable, "-m", "cytomine_spawner.archive.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        end = time.monotonic() + STARTING
        while not os.path.ismount(folder):
            code = child.poll()
            if code is not None or time.monotonic() > end:
                child.terminate()
                said.seek(0)
                words = said.read().decode(errors="replace").strip().removeprefix("sda: ")
                raise CannotMount(
                    words or f"{folder} was not mounted within {STARTING:.0f} seconds: try again."
                )
            time.sleep(0.05)
