"""Data sets: from files to uint8 tensors, verified by content where it is known. torchvision downloads."""

from aae_runner.datasets.arrays import Arrays
from aae_runner.datasets.digits import Digits
from aae_runner.datasets.idx import MNIST, FashionMNIST
from aae_runner.datasets.pictures import Pictures
from aae_runner.datasets.svhn import SVHN

__all__ = ["MNIST", "SVHN", "Arrays", "Digits", "FashionMNIST", "Pictures"]
