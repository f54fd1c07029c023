"""Street View House Numbers."""

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.io
import torch
from torch import Tensor

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import fail, fetch, shuffled, sound
from aae_runner.datasets.mat import pictures

Found = TypeVar("Found")
SHAPE = (3, 32, 32)

MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
"""Of the official files; torchvision's."""


class SVHN:
    """Street View House Numbers, format 2: `train_32x32.mat` and `test_32x32.mat` in `root`.

    A tenth of the training images, drawn by a fixed permutation (neighbors come from one photo), is
    the validation split.

    Args:
        root: folder that holds the .mat files.
        download: fetch missing files.
        checksums: expect the official files; without, a part of SVHN in the same layout is read too, and
            scores on it are marked as not official.
        extra: train on the 531,131 images of `extra_32x32.mat` as well.
    """

    def __init__(self, *, root: str, download: bool, checksums: bool, extra: bool) -> None:
        self.root, self.may_download, self.checksums = Path(root).expanduser(), download, checksums
        self.parts = ["train", *["extra"] * extra]

    def read(self) -> Splits:
        """The splits.

        Raises:
            DataError: a file is missing or damaged.
        """
        labels = {part: self._sound(part, self._labels) for part in (*self.parts, "test")}
        y = torch.cat([labels[part] for part in self.parts])
        order, held = torch.from_numpy(shuffled(len(y))), len(y) // 10
        place = torch.empty_like(order)
        place[order] = torch.arange(len(y))
        valid, train = (torch.empty(n, *SHAPE, dtype=torch.uint8) for n in (held, len(y) - held))
        start = 0
        for part in self.parts:  # each picture goes to its place at once: the extra ones fill a memory
            to = place[start : start + len(labels[part])]
            self._sound(
                part, self._pixels, len(to), lambda at, x, to=to: _put(x, to[at : at + len(x)], valid, train)
            )
            start += len(labels[part])
        test = torch.empty(len(labels["test"]), *SHAPE, dtype=torch.uint8)
        self._sound("test", self._pixels, len(test), lambda at, x: test[at : at + len(x)].copy_(x))
        note = "" if self.checksums else "not the official SVHN: do not compare with published scores"
        return Splits(
            Images(train, y[order[held:]]), Images(valid, y[order[:held]]), Images(test, labels["test"]), note
        )

    def _sound(self, part: str, read: Callable[..., Found], *more: Any) -> Found:
        def repair() -> None:
            from torchvision.datasets import SVHN as Official  # noqa: N811

            url, name, md5 = Official.split_list[part]
            fetch([url], self.root / name, md5)

        path = self.root / f"{part}_32x32.mat"
        return sound(lambda: read(path, *more), repair if self.may_download else None)

    def _labels(self, path: Path) -> Tensor:
        """(N,) int64; the file is checked."""
        remedy = self._remedy(path)
        if not path.is_file():
            raise fail(path, "no such file", remedy)
        if self.checksums:
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "md5").hexdigest()
            except OSError as error:
                raise fail(path, f"unreadable ({error.strerror})", remedy) from error
            if found != MD5[path.name]:
                problem = f"its content has MD5 {found}, expected {MD5[path.name]}"
                raise fail(path, problem, f"Remove it. {remedy} data.checksums=false takes a part of SVHN.")
        try:
            labels = scipy.io.loadmat(path, variable_names=["y"])["y"].reshape(-1).astype(np.int64)
        except Exception as error:  # scipy's reader raises whatever a damaged byte leads it to
            raise fail(path, f"damaged or unreadable ({error})", f"Remove it. {remedy}") from error
        return torch.from_numpy(labels % 10)  # the digit 0 is written 10

    def _pixels(self, path: Path, labels: int, put: Callable[[int, Tensor], object]) -> None:
        """Hands out blocks of pictures (n, 3, 32, 32), each with the index of its first; one a label."""
        at = 0
        try:
            for block in pictures(path, "X"):
                if at + len(block) <= labels:
                    put(at, torch.from_numpy(np.ascontiguousarray(block)))
                at += len(block)
            if at != labels:
                raise ValueError(f"it holds {at:,} pictures and {labels:,} labels")
        except (ValueError, RuntimeError, zlib.error, OSError) as error:
            raise fail(
                path, f"damaged or unreadable ({error})", f"Remove it. {self._remedy(path)}"
            ) from error

    def _remedy(self, path: Path) -> str:
        return f"Put the original {path.name} into {self.root} yourself (data.root names the folder)."


def _put(x: Tensor, to: Tensor, valid: Tensor, train: Tensor) -> None:
    """Pictures to their places, which count through the validation split first."""
    held = to < len(valid)
    valid[to[held]], train[to[~held] - len(valid)] = x[held], x[~held]
