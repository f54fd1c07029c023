"""A user's own pictures, a sub-folder a class."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import fail, own_splits
from aae_runner.disk import written
from aae_runner.errors import DiskError

log = logging.getLogger("aae_runner")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of pictures, in upper case too; other files are passed over, and so is what begins with a dot."""


class Pictures:
    """Pictures in `root/train/<class>/` and `root/test/<class>/`; a sub-folder's name is its class's.

    A class's pictures may lie in sub-folders of its own. Classes are numbered in the order of their names;
    a single one means that the pictures are not labelled. A tenth of the training pictures, drawn by a
    fixed permutation, is the validation split; without a folder `test` another tenth is the test split.

    Once read, the pixels are kept in `root/.cache`, which may be removed at any time.

    Args:
        root: folder that holds `train` and, if there is one, `test`.
        resize: channels (1: gray, 3: RGB), height and width in pixels. Every picture is stretched or
            shrunk to it, turned upright first if a camera noted how it was held; transparency is dropped.
    """

    def __init__(
        self, *, root: str, resize: tuple[Literal[1, 3], Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
    ) -> None:
        self.root, self.shape = Path(root).expanduser(), resize

    def read(self) -> Splits:
        """The splits.

        Raises:
            DataError: a folder is missing, empty or has other classes, or a picture cannot be read.
        """
        found = {"train": _by_class(self.root / "train")}
        classes = list(found["train"])
        if (folder := self.root / "test").is_dir():
            found["test"] = _by_class(folder)
            if list(found["test"]) != classes:
                raise fail(
                    folder,
                    f"its sub-folders are {', '.join(found['test'])}, those of train {', '.join(classes)}",
                    "Give both the same ones, or take test away: a tenth of train is then held out.",
                )
        x = self._pixels([path for part in found.values() for paths in part.values() for path in paths])
        y = [k for part in found.values() for k, paths in enumerate(part.values()) for _ in paths]
        images = Images(torch.from_numpy(x), torch.tensor(y))
        n = sum(map(len, found["train"].values()))
        test = images[n:] if "test" in found else None
        return own_splits(images[:n], test, classes, self.root / "train")

    def _pixels(self, files: Sequence[Path]) -> NDArray[np.uint8]:
        """(N, C, H, W), kept for the next start under a name that changes with the files and the shape."""
        seen = [self.shape, *(_state(path, self.root) for path in files)]
        kept = self.root / ".cache" / f"{hashlib.sha256(repr(seen).encode()).hexdigest()[:16]}.npz"
        x = np.empty((len(files), *self.shape), np.uint8)
        try:
            with kept.open("rb") as stored, np.load(stored, allow_pickle=False) as content:
                x[:] = content["x"]
            return x
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:  # whatever a damaged byte leads to
            log.warning("%s cannot be used (%s); the pictures are read again.", kept, error)
        x, _ = read_pictures(files, self.shape)
        try:
            with written(kept) as file:
                np.savez(file, x=x)
        except DiskError as error:
            log.warning("The pixels cannot be kept for the next start, which will be as slow: %s.",
                        error.__cause__)  # fmt: skip
        return x


def read_pictures(files: Sequence[Path], shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], int]:
    """The pixels (N, C, H, W) of pictures, each resized to a shape (C, H, W), and how many were not of it.

    Raises:
        DataError: one cannot be read.
    """
    x = np.empty((len(files), *shape), np.uint8)
    console, others = Console(), 0
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        read = pool.map(lambda path: _picture(path, shape), files)
        shown = track(read, "reading pictures", len(files), console=console, transient=True,
                      disable=not console.is_terminal)  # fmt: skip
        for place, (pixels, other) in enumerate(shown):
            x[place] = pixels
            others += other
    return x, others


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder at any depth, in the order of their names.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        raise fail(folder, "no such folder", "Name one that holds pictures, at any depth.")
    if not (found := sorted(path for path in folder.rglob("*") if _is_picture(path.relative_to(folder)))):
        raise fail(folder, "no pictures", f"Allowed are {', '.join(SUFFIXES)}. Put some there, at any depth.")
    return found


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, both in the order of their names."""
    remedy = f"Put pictures into {folder}/<class>, a sub-folder a class (data.root is the folder above)."
    if not folder.is_dir():
        raise fail(folder, "no such folder", remedy)
    classes = [one for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if not classes:
        raise fail(folder, "no sub-folders", remedy)
    return {one.name: find_pictures(one) for one in classes}


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _state(path: Path, root: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError as error:  # a link to nowhere
        raise fail(path, f"cannot be read ({error.strerror})", "Bring it back, or remove it.") from error
    return path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns


def _picture(path: Path, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Its pixels in a shape, and whether it had another size, or was of color or gray where that is not."""
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):  # PIL would clip them to white
                raise ValueError("more than 8 bits a channel")
            same = opened.mode in (("1", "L") if channels == 1 else ("RGB", "P"))
            upright = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
        other = not same or upright.size != (width, height)
        # bilinear over the whole area that a pixel covers: no aliasing, no ringing
        pixels = np.asarray(upright.resize((width, height), Image.Resampling.BILINEAR))
    except Exception as error:  # PIL's readers raise whatever a damaged byte leads them to
        problem = f"damaged or no picture that can be read ({error})"
        raise fail(path, problem, "Save it anew with 8 bits a channel, or remove it.") from error
    return pixels.reshape(height, width, channels).transpose(2, 0, 1), other
