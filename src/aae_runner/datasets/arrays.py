"""A user's own NumPy arrays."""

import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Len
from numpy.typing import NDArray

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import fail, own_splits


class Arrays:
    """`train.npz` and `test.npz` in `root`, as `numpy.savez` writes them: images and, if known, labels.

    A tenth of the training images, drawn by a fixed permutation, is the validation split; without
    `test.npz` another tenth is the test split. Without labels every label is 0.

    Args:
        root: folder that holds the files.
        x: name of the array of images: uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W).
        y: name of the array of labels: integers from 0, of shape (N,). It may be absent from both files.
        expect: channels, height and width of an image; tells the layouts apart.
    """

    def __init__(
        self, *, root: str, x: str, y: str, expect: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)]
    ) -> None:
        self.root, self.x, self.y, self.shape = Path(root).expanduser(), x, y, tuple(expect)

    def read(self) -> Splits:
        """The splits.

        Raises:
            DataError: a file is missing or damaged, or its arrays have another type or shape.
        """
        train, labelled = self._npz(path := self.root / "train.npz")
        test = None
        if (test_path := self.root / "test.npz").is_file():
            test, too = self._npz(test_path)
            if too != labelled:
                bare, other = (test_path, path) if labelled else (path, test_path)
                remedy = "Save labels with both, or with neither."
                raise fail(bare, f"no array {self.y}, though {other.name} has one", remedy)
        largest = max(int(part.y.max()) for part in (train, test) if part)
        if largest >= (n := len(train)):
            problem = f"{self.y} goes up to {largest:,}, with {n:,} training images"
            raise fail(path, problem, "Allowed: integers from 0 to classes - 1.")
        return own_splits(train, test, [str(k) for k in range(largest + 1)], path)

    def _npz(self, path: Path) -> tuple[Images, bool]:
        """The images of a file, and whether it has labels."""
        remedy = f"Write it with numpy.savez(path, {self.x}=..., {self.y}=...)."
        if not path.is_file():
            raise fail(path, "no such file", f"{remedy} data.root names its folder.")
        if not zipfile.is_zipfile(path):
            raise fail(path, "not a complete .npz file", remedy)
        try:
            # a pickle could run any code
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                names = list(content)
                arrays = {name: content[name] for name in (self.x, self.y) if name in names}
        except Exception as error:  # whatever a damaged byte leads to
            raise fail(path, f"damaged or unreadable ({error})", remedy) from error
        if self.x not in arrays:
            problem = f"no array {self.x} among its arrays ({', '.join(names) or 'none'})"
            raise fail(path, problem, "data.x=NAME says which one holds the images.")
        x, y = self._images(path, arrays[self.x]), arrays.get(self.y)
        if y is None:
            return Images(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64)), False
        if y.dtype.kind not in "iu" or y.shape != (len(x),):
            problem = f"{self.y} is {y.dtype} of shape {y.shape}"
            raise fail(path, problem, f"Allowed: integers of shape ({len(x)},), each from 0 to classes - 1.")
        return Images(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))), True

    def _images(self, path: Path, x: NDArray[Any]) -> NDArray[np.uint8]:
        """(N, C, H, W), from whichever of the layouts has the stated shape."""
        if x.dtype != np.uint8:
            raise fail(path, f"{self.x} is {x.dtype}", "Allowed: uint8. Scale pixels to 0 to 255 first.")
        channels, height, width = self.shape
        if x.shape[1:] == (height, width) and channels == 1:
            x = x[:, None]
        elif x.shape[1:] == (height, width, channels) != self.shape:
            x = x.transpose(0, 3, 1, 2)
        if x.shape[1:] != self.shape or not len(x):
            raise fail(
                path,
                f"{self.x} has shape {x.shape}",
                f"Allowed: (N, H, W), (N, H, W, C) or (N, C, H, W) with data.shape=[C,H,W], which is now "
                f"[{channels},{height},{width}], and at least one image.",
            )
        return np.ascontiguousarray(x)
