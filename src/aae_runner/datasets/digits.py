"""The embedded digits."""

import numpy as np
import torch

from aae_runner.data import Images, Splits
from aae_runner.datasets.files import shuffled


class Digits:
    """The 1,797 digits of 8x8 pixels that come with scikit-learn: no files, no download.

    Shuffled by a fixed permutation: 1,000 training, 297 validation, 500 test images.
    """

    def read(self) -> Splits:
        """The splits; 17 grey levels, spread over 0 to 255."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        order = shuffled(len(labels))
        x = torch.from_numpy(np.rint(pixels[order] * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
        images = Images(x, torch.from_numpy(labels[order].astype(np.int64)))
        return Splits(images[:1000], images[1000:1297], images[1297:])
