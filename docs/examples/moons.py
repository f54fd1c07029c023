"""A data set of your own: a spot at a place drawn from two moons, with no file to read."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt

from aae_runner.data import Images, Splits


class Moons:
    """Gray pictures of one spot each; its place lies on one of two crescents, and which one is the label.

    Two numbers explain a picture, so a code of two dimensions can hold it all.

    Args:
        pixels: height and width.
        spot: standard deviation of the spot, in pixels.
        train: training images; the validation and test splits have a quarter of them each.
    """

    def __init__(
        self, *, pixels: Annotated[int, Ge(8)], spot: Annotated[float, Gt(0)], train: Annotated[int, Ge(40)]
    ) -> None:
        self.pixels, self.spot, self.train = pixels, spot, train

    def read(self) -> Splits:
        """The splits: the same at each call, whatever the seed of the run."""
        from sklearn.datasets import make_moons

        n = self.train + 2 * (self.train // 4)
        places, labels = make_moons(n, noise=0.05, random_state=0)
        low, high = places.min(0), places.max(0)
        x, y = ((0.1 + 0.8 * (places - low) / (high - low)) * (self.pixels - 1)).T  # (N,) each, in pixels
        grid = np.arange(self.pixels)
        across = np.exp(-0.5 * ((grid - x[:, None]) / self.spot) ** 2)  # (N, W)
        down = np.exp(-0.5 * ((grid - y[:, None]) / self.spot) ** 2)  # (N, H)
        pictures = np.rint(255 * down[:, :, None] * across[:, None, :]).astype(np.uint8)  # (N, H, W)
        images = Images(torch.from_numpy(pictures).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))
        held_out = self.train // 4
        train, valid, test = (
            images[: self.train],
            images[self.train : self.train + held_out],
            images[self.train + held_out :],
        )
        return Splits(train, valid, test, names=("upper", "lower"))
