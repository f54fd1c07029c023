"""Files that are whole or not there at all, and the lock of a run folder."""

import contextlib
import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aae_runner.errors import DiskError, RunInUseError

FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
"""Errors that mean a lack of room."""

UNLOCKABLE = errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP
"""Errors that mean a file system without `flock`."""

log = logging.getLogger("aae_runner")


@contextlib.contextmanager
def written(path: Path, needed: int | None = None) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on the disk.

    Args:
        path: of the file.
        needed: its bytes, where they are known, for the message of an error.

    Raises:
        DiskError: it cannot be written; nothing is left under the name but what stood there before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise unwritable(path, error, needed) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; see `written`."""
    with written(path, len(content)) as file:
        file.write(content)


def unwritable(path: Path, error: OSError, needed: int | None = None) -> DiskError:
    """What to say of a file that cannot be written: why, and what to do.

    Args:
        path: of the file.
        error: what happened.
        needed: its bytes, which are said with those that are free where room is what is missing.
    """
    folder = path.parent
    while not os.path.exists(folder):  # noqa: PTH110 - unlike Path.exists, no error where one may not look
        folder = folder.parent
    reason = error.strerror if folder.is_dir() else f"{folder} is no folder"
    another = "another place (runs=FOLDER, -o FILE; of data: data.root=FOLDER, --root FOLDER)"
    if error.errno not in FULL:
        return DiskError(f"{path}: cannot be written ({reason}). Choose {another}.")
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize / 2**20
    need = "" if needed is None else f"{needed / 2**20:,.1f} MiB were needed; "
    return DiskError(
        f"{path}: cannot be written ({reason}). {need}{folder} has {free:,.0f} MiB free. "
        f"Make room, or choose {another}."
    )


def tidy(folder: Path) -> None:
    """Removes what a killed process left half written in a folder that is locked, and in those within."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder; the operating system frees it when the process ends, however it ends.

    Raises:
        RunInUseError: another process holds it.
        DiskError: the folder cannot be made.
    """
    path = folder / ".lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise RunInUseError(
                    f"{folder}: {holder} trains in this run folder. Wait for it to end, or choose another "
                    "place with runs=FOLDER."
                ) from error
            except OSError as error:
                if error.errno not in UNLOCKABLE:
                    raise unwritable(path, error) from error
                log.warning("%s: no locks are known here; see that no other process trains in it.", folder)
            # if the folder was moved aside between the opening and the lock, this is another run's file
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            with contextlib.suppress(OSError):  # on a full disk the lock holds, and does not say who
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
            yield
            return
