"""MNIST and Fashion-MNIST: four idx files, packed or unpacked, as torchvision leaves them."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import fail, fetch, sound

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the unpacked files, so that packed and unpacked ones are checked alike."""

FASHION_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""Of the packed files; torchvision's. Nobody published checksums of the unpacked ones."""


class MNIST:
    """MNIST's four original files in `root/MNIST/raw`, packed or unpacked, as torchvision leaves them.

    The first 50,000 training images are the training split, the last 10,000 the validation split.

    Args:
        root: folder that holds `MNIST/raw`.
        download: fetch missing files.
        checksums: expect the official contents.
    """

    name: ClassVar[str] = "MNIST"
    """Of the folder, and of torchvision's class."""
    classes: ClassVar[Sequence[str]] = "0123456789"
    """Their names."""

    def __init__(self, *, root: str, download: bool, checksums: bool) -> None:
        self.root, self.may_download, self.checksums = Path(root).expanduser(), download, checksums

    def read(self) -> Splits:
        """The splits.

        Raises:
            DataError: a file is missing or damaged.
        """
        train, test = (
            Images(self._sound(f"{part}-images-idx3-ubyte")[:, None],
                   self._sound(f"{part}-labels-idx1-ubyte").long())
            for part in ("train", "t10k")
        )  # fmt: skip
        note = "" if self.checksums else f"not checked to be the official {self.name}"
        return Splits(train[:50_000], train[50_000:], test, note, self.classes)

    def _sound(self, name: str) -> torch.Tensor:
        folder = self.root / self.name / "raw"

        def repair() -> None:
            from torchvision import datasets

            official = getattr(datasets, self.name)
            (md5,) = [md5 for file, md5 in official.resources if file == f"{name}.gz"]
            fetch([f"{mirror}{name}.gz" for mirror in official.mirrors], folder / f"{name}.gz", md5)

        return sound(lambda: self._idx(folder, name), repair if self.may_download else None)

    def _doubt(self, path: Path, stored: bytes, content: bytes) -> str:
        """Why this cannot be said to be the official file; empty if it is."""
        found, expected = hashlib.sha256(content).hexdigest(), MNIST_SHA256[path.with_suffix("").name]
        if found == expected:
            return ""
        return f"its content has SHA-256 {found[:12]}..., expected {expected[:12]}..."

    def _idx(self, folder: Path, name: str) -> torch.Tensor:
        path = _packed_or_not(folder / name)
        remedy = (
            f"Put the original {name}.gz into {folder} yourself (data.root names the folder above "
            f"{self.name}/raw)."
        )
        if path is None:
            raise fail(folder / f"{name}.gz", "no such file", remedy)
        try:
            stored = path.read_bytes()
            content = gzip.decompress(stored) if path.suffix == ".gz" else stored
        except (OSError, EOFError, zlib.error) as error:
            raise fail(path, f"damaged or unreadable ({error})", f"Remove it. {remedy}") from error
        if self.checksums and (doubt := self._doubt(path, stored, content)):
            raise fail(path, doubt, f"Remove it. {remedy} data.checksums=false takes it as it is.")
        # idx: two zero bytes, type (8: uint8), number of dimensions, then each dimension as a big-endian int
        start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
        shape = np.frombuffer(content[4:start], ">u4").tolist() if len(content) >= start else []
        if not shape or len(content) != start + math.prod(shape):
            raise fail(path, "not a complete idx file of bytes", f"Remove it. {remedy}")
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


class FashionMNIST(MNIST):
    """Fashion-MNIST: ten kinds of clothing, in the same files as MNIST's, in `root/FashionMNIST/raw`.

    The known checksums are those of the packed files. So with `checksums` an unpacked file is read only
    where the packed one is missing, and then refused: that it is the official one could not be said.

    Args:
        root: folder that holds `FashionMNIST/raw`.
        download: fetch missing files.
        checksums: expect the official packed files.
    """

    name = "FashionMNIST"
    classes = ("top", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")

    def _doubt(self, path: Path, stored: bytes, content: bytes) -> str:
        if path.suffix != ".gz":
            return "it cannot be checked, since the known checksum is that of the packed file"
        found, expected = hashlib.md5(stored).hexdigest(), FASHION_MD5[path.with_suffix("").name]
        return "" if found == expected else f"it has MD5 {found}, expected {expected}"


def _packed_or_not(path: Path) -> Path | None:
    return next((one for one in (path.with_name(path.name + ".gz"), path) if one.is_file()), None)
