"""Saved states of a run, checked before they are read."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from aae_runner.disk import written
from aae_runner.errors import CheckpointError

KIND = b"aae-runner checkpoint "
MAGIC = KIND + b"2 "
KEPT = 2


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
    header = MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
    with written(folder / f"step_{step:09d}.pt", len(header) + len(content)) as file:
        file.write(header)
        file.write(content)
    for old in sorted(folder.glob("step_*.pt"))[:-KEPT]:
        old.unlink()


def exists(folder: Path) -> bool:
    """Whether a state was ever saved there, be it sound or not."""
    return any(folder.glob("step_*.pt"))


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
    if header.startswith(KIND) and not header.startswith(MAGIC):
        raise CheckpointError(f"{path}: written by another version of this program, which can continue it.")
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
