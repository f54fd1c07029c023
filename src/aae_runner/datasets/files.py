"""What several data sets need: errors that name a file, downloads, and splits that depend on no seed."""

import logging
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from aae_runner.data import Images, Splits
from aae_runner.disk import FULL, unwritable
from aae_runner.errors import DataError

log = logging.getLogger("aae_runner")

T = TypeVar("T")

SILENCE = 30.0
"""Seconds without a byte after which a download is given up."""


def fail(path: Path, problem: str, remedy: str) -> DataError:
    """An error about a file: what is wrong with it, and what to do."""
    return DataError(f"{path}: {problem}.", remedy)


def sound(read: Callable[[], T], fetch: Callable[[], None] | None) -> T:
    """What `read` returns; a file that is missing or damaged is fetched once, where that is allowed.

    Args:
        read: reads a file, or raises a DataError.
        fetch: downloads it; None: the network is not touched.

    Raises:
        DataError: the file is missing or damaged, and could not be downloaded.
    """
    try:
        return read()
    except DataError as error:
        if fetch is None:
            fetched = "Or let it be fetched: `aae data fetch`, or data.download=true of `aae-run`."
            raise DataError(error.problem, f"{error.remedy} {fetched}") from error
        log.info("%s It is downloaded now.", error.problem)
        try:
            fetch()
        except DataError as failed:
            raise DataError(f"{error.problem} {failed}", f"{error.remedy} Or try again later.") from failed
    return read()


def fetch(urls: Sequence[str], path: Path, md5: str) -> None:
    """Downloads a file under a temporary name, checks it, and only then gives it its own.

    What stood under the name before is kept beside, as `<name>.damaged`.

    Args:
        urls: where it may be had, in this order.
        path: where it belongs.
        md5: of its content.

    Raises:
        DataError: none of the places gives it whole.
        DiskError: it cannot be written.
    """
    from torchvision.datasets.utils import check_integrity, download_url

    problems = []
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        for url in urls:
            try:
                download_url(url, str(folder), path.name, md5)
                if check_integrity(str(path), md5):  # another job was faster
                    return
                if path.exists():
                    path.replace(path.with_name(f"{path.name}.damaged"))
                (folder / path.name).replace(path)
            except (OSError, RuntimeError, HTTPException) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise unwritable(path, error) from error
                problems.append(f"{url}: {' '.join(str(error).split())}")
            else:
                return
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(folder, ignore_errors=True)
    raise DataError(f"It could not be downloaded ({'; '.join(problems)}).")


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


def own_splits(train: Images, test: Images | None, names: Sequence[str], source: Path) -> Splits:
    """The splits of a user's own data: a tenth of `train` becomes the validation split.

    Args:
        train: all that may be trained on.
        test: None: another tenth of `train` becomes the test split.
        names: of the classes. Fewer than two mean that the data are not labelled.
        source: where `train` came from, for messages.

    Raises:
        DataError: there are too few images to hold a tenth out.
    """
    if len(train) < 20:
        raise fail(source, f"{len(train)} images", "At least 20 are needed, for a tenth of them is held out.")
    notes = []
    if test is None:
        train, valid, test = hold_out(train, tenths=2)
        notes.append("there is no test folder or file, so a tenth of the training images was held out")
    else:
        train, valid = hold_out(train)
    if len(names) < 2:
        notes.append("there are no labels, so error rates mean nothing")
    return Splits(train, valid, test, "; ".join(notes), names if len(names) > 1 else ())
