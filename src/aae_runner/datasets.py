"""Data sets: from original files to uint8 tensors, verified by content. torchvision downloads."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from aae_runner.data import Images, Splits
from aae_runner.errors import DataError

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the unpacked files, so that packed and unpacked ones are checked alike."""

SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}


def _shuffled(n: int) -> NDArray[np.int64]:
    # RandomState's stream is frozen by numpy's promise; torch's may change between versions
    return np.random.RandomState(0).permutation(n)


def _fail(path: Path, problem: str, remedy: str) -> DataError:
    return DataError(f"{path}: {problem}. {remedy}")


class Digits:
    """The 1,797 digits of 8x8 pixels that come with scikit-learn: no files, no download.

    Shuffled by a fixed permutation: 1,000 training, 297 validation, 500 test images.
    """

    def read(self) -> Splits:
        """The splits; 17 grey levels, spread over 0 to 255."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        order = _shuffled(len(labels))
        x = torch.from_numpy(np.rint(pixels[order] * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
        images = Images(x, torch.from_numpy(labels[order].astype(np.int64)))
        return Splits(images[:1000], images[1000:1297], images[1297:])


class MNIST:
    """MNIST's four original files in `root/MNIST/raw`, packed or unpacked, as torchvision leaves them.

    The first 50,000 training images are the training split, the last 10,000 the validation split.

    Args:
        root: folder that holds `MNIST/raw`.
        download: fetch missing files.
        checksums: expect the official contents.
    """

    def __init__(self, *, root: str, download: bool, checksums: bool) -> None:
        self.root, self.may_download, self.checksums = Path(root).expanduser(), download, checksums

    def read(self) -> Splits:
        """The splits.

        Raises:
            DataError: a file is missing or damaged.
        """
        folder = self.root / "MNIST" / "raw"
        if self.may_download and not all(_packed_or_not(folder / name) for name in MNIST_SHA256):
            from torchvision.datasets import MNIST as Download  # noqa: N811

            _download(lambda: Download(str(self.root), download=True), folder)
        train, test = (
            Images(self._idx(folder, f"{part}-images-idx3-ubyte")[:, None],
                   self._idx(folder, f"{part}-labels-idx1-ubyte").long())
            for part in ("train", "t10k")
        )  # fmt: skip
        note = "" if self.checksums else "not checked to be the official MNIST"
        return Splits(train[:50_000], train[50_000:], test, note)

    def _idx(self, folder: Path, name: str) -> torch.Tensor:
        path = _packed_or_not(folder / name)
        remedy = (
            f"Let it be fetched (data.download=true), or put the original {name}.gz into {folder} yourself "
            "(data.root names the folder above MNIST/raw)."
        )
        if path is None:
            raise _fail(folder / f"{name}.gz", "no such file", remedy)
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise _fail(path, f"damaged or unreadable ({error})", f"Remove it. {remedy}") from error
        found = hashlib.sha256(content).hexdigest()
        if self.checksums and found != MNIST_SHA256[name]:
            problem = f"its content has SHA-256 {found[:12]}..., expected {MNIST_SHA256[name][:12]}..."
            raise _fail(path, problem, f"Remove it. {remedy} data.checksums=false takes it as it is.")
        # idx: two zero bytes, type (8: uint8), number of dimensions, then each dimension as a big-endian int
        dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
        shape = (
            tuple(np.frombuffer(content, ">u4", count=dimensions, offset=4).tolist()) if dimensions else ()
        )
        if not shape or len(content) != 4 + 4 * dimensions + int(np.prod(shape)):
            raise _fail(path, "not a complete idx file of bytes", f"Remove it. {remedy}")
        flat = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        return torch.from_numpy(flat.reshape(shape).copy())


def _packed_or_not(path: Path) -> Path | None:
    return next((one for one in (path.with_name(path.name + ".gz"), path) if one.is_file()), None)


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
        read = [self._mat(part) for part in self.parts]
        train = Images(torch.cat([one.x for one in read]), torch.cat([one.y for one in read]))
        order = torch.from_numpy(_shuffled(len(train)))
        held_out = len(train) // 10
        note = "" if self.checksums else "not the official SVHN: do not compare with published scores"
        return Splits(train[order[held_out:]], train[order[:held_out]], self._mat("test"), note)

    def _mat(self, part: str) -> Images:
        path = self.root / f"{part}_32x32.mat"
        remedy = (
            f"Let it be fetched (data.download=true), or put the original {path.name} into {self.root} "
            "yourself (data.root names the folder)."
        )
        if self.may_download and not path.is_file():
            from torchvision.datasets import SVHN as Download  # noqa: N811

            _download(lambda: Download(str(self.root), split=part, download=True), path)
        if not path.is_file():
            raise _fail(path, "no such file", remedy)
        if self.checksums:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != SVHN_MD5[path.name]:
                problem = f"its content has MD5 {found}, expected {SVHN_MD5[path.name]}"
                raise _fail(path, problem, f"Remove it. {remedy} data.checksums=false takes a part of SVHN.")
        try:
            content = scipy.io.loadmat(path, variable_names=["X", "y"])
            pixels, labels = content["X"], content["y"].reshape(-1).astype(np.int64)
        except Exception as error:  # scipy's reader raises whatever a damaged byte leads it to
            raise _fail(path, f"damaged or unreadable ({error})", f"Remove it. {remedy}") from error
        x = torch.from_numpy(
            np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
        )  # (32, 32, 3, N) -> (N, 3, 32, 32)
        return Images(x, torch.from_numpy(labels % 10))  # the digit 0 is written 10


def _download(fetch: Callable[[], object], path: Path) -> None:
    try:
        fetch()
    except (OSError, RuntimeError) as error:
        raise _fail(
            path,
            f"could not be downloaded ({' '.join(str(error).split())})",
            f"Try again later, or put the original files into {path.parent} yourself.",
        ) from error
