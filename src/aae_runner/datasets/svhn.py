"""Street View House Numbers."""

import hashlib
from pathlib import Path

import numpy as np
import scipy.io
import torch

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import fail, fetch, hold_out, sound

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
        read = [self._sound(part) for part in self.parts]
        train = Images(torch.cat([one.x for one in read]), torch.cat([one.y for one in read]))
        train, valid = hold_out(train)
        note = "" if self.checksums else "not the official SVHN: do not compare with published scores"
        return Splits(train, valid, self._sound("test"), note)

    def _sound(self, part: str) -> Images:
        def repair() -> None:
            from torchvision.datasets import SVHN as Official  # noqa: N811

            url, name, md5 = Official.split_list[part]
            fetch([url], self.root / name, md5)

        return sound(lambda: self._mat(part), repair if self.may_download else None)

    def _mat(self, part: str) -> Images:
        path = self.root / f"{part}_32x32.mat"
        remedy = f"Put the original {path.name} into {self.root} yourself (data.root names the folder)."
        if not path.is_file():
            raise fail(path, "no such file", remedy)
        if self.checksums:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != MD5[path.name]:
                problem = f"its content has MD5 {found}, expected {MD5[path.name]}"
                raise fail(path, problem, f"Remove it. {remedy} data.checksums=false takes a part of SVHN.")
        try:
            content = scipy.io.loadmat(path, variable_names=["X", "y"])
            pixels, labels = content["X"], content["y"].reshape(-1).astype(np.int64)
        except Exception as error:  # scipy's reader raises whatever a damaged byte leads it to
            raise fail(path, f"damaged or unreadable ({error})", f"Remove it. {remedy}") from error
        x = torch.from_numpy(
            np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
        )  # (32, 32, 3, N) -> (N, 3, 32, 32)
        return Images(x, torch.from_numpy(labels % 10))  # the digit 0 is written 10
