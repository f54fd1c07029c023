"""What several data sets need: errors that name a file, downloads, and splits that depend on no seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aae_runner.data import Images, Splits
from aae_runner.errors import DataError


def fail(path: Path, problem: str, remedy: str) -> DataError:
    """An error about a file: what is wrong with it, and what to do."""
    return DataError(f"{path}: {problem}. {remedy}")


def download(fetch: Callable[[], object], path: Path) -> None:
    """Lets torchvision fetch what belongs at `path`.

    Raises:
        DataError: it could not.
    """
    try:
        fetch()
    except (OSError, RuntimeError) as error:
        raise fail(
            path,
            f"could not be downloaded ({' '.join(str(error).split())})",
            f"Try again later, or put the original files into {path.parent} yourself.",
        ) from error


def shuffled(n: int) -> NDArray[np.int64]:
    """The fixed permutation of n images."""
    # RandomState's stream is frozen by numpy's promise; torch's may change between versions
    return np.random.RandomState(0).permutation(n)


def hold_out(images: Images, tenths: int = 1) -> list[Images]:
    """Takes tenths of the images out, drawn by the fixed permutation: the rest, then each tenth."""
    order = torch.from_numpy(shuffled(len(images)))
    size = len(images) // 10
    return [images[order[tenths * size :]],
            *(images[order[k * size : (k + 1) * size]] for k in range(tenths))]  # fmt: skip


def own_splits(train: Images, test: Images | None, classes: int, source: Path) -> Splits:
    """The splits of a user's own data: a tenth of `train` becomes the validation split.

    Args:
        train: all that may be trained on.
        test: None: another tenth of `train` becomes the test split.
        classes: how many there are. Fewer than two mean that the data are not labelled.
        source: where `train` came from, for messages.

    Raises:
        DataError: there are too few images to hold a tenth out.
    """
    if len(train) < 10:
        raise fail(source, f"{len(train)} images", "At least 10 are needed, for a tenth of them is held out.")
    notes = []
    if test is None:
        train, valid, test = hold_out(train, tenths=2)
        notes.append("there is no test folder or file, so a tenth of the training images was held out")
    else:
        train, valid = hold_out(train)
    if classes < 2:
        notes.append("there are no labels, so error rates mean nothing")
    return Splits(train, valid, test, "; ".join(notes), classes if classes > 1 else None)
