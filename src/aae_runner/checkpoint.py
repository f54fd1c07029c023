"""States of a run on disk: whole or not at all, checked before they are read."""

import contextlib
import fcntl
import hashlib
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from aae_runner.errors import CheckpointError, DiskError, RunInUseError

MAGIC = b"aae-runner checkpoint 1 "
KEPT = 2


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on the disk.

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
        raise DiskError(f"{path}: cannot be written ({error.strerror}). {_free(path.parent)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize / 2**20
    return f"{folder} has {free:,.0f} MiB free; choose another place with runs=FOLDER."


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
            file = path.open("a+")
        except OSError as error:
            raise DiskError(f"{folder}: cannot be used ({error.strerror}). {_free(folder)}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunInUseError(
                    f"{folder}: process {file.read().strip()} trains in this run folder. Wait for it to "
                    "end, or choose another place with runs=FOLDER."
                ) from error
            # if the folder was moved aside between the opening and the lock, this is another run's file
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            return


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes a state and removes all but the last two.

    Args:
        folder: of the checkpoints.
        step: number of finished steps.
        state: tensors, numbers, strings, and dictionaries and lists of them.
    """
    payload = io.BytesIO()
    torch.save(state, payload)
    content = payload.getbuffer()
    with written(folder / f"step_{step:09d}.pt") as file:
        file.write(MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)
    for old in sorted(folder.glob("step_*.pt"))[:-KEPT]:
        old.unlink()


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest sound state, or None where none was ever saved; and what was wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints, but none is sound.
    """
    problems: list[str] = []
    damaged: list[Path] = []
    files = sorted(folder.glob("step_*.pt"), reverse=True)
    for path in files:
        try:
            state = _read(path)
        except CheckpointError as error:
            problems.append(str(error))
            damaged.append(path)
        else:
            for one in damaged:  # out of the way, so that two sound ones are kept
                one.rename(one.with_suffix(".damaged"))
            return state, problems
    if files:
        raise CheckpointError(
            " ".join(problems)
            + " No saved state is left; start afresh with resume=false (the old folder is kept)."
        )
    return None, problems


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    header, _, payload = content.partition(b"\n")
    # torch.load would not notice a flipped bit, so the payload is checked before it is parsed
    if header != MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise CheckpointError(f"{path}: damaged (its content is not what was written).")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain numbers, and is not read."
        ) from error
    return state
