"""A model at a moment of its training, and what looks at it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from aae_runner.data import Data, Images, normalize
from aae_runner.errors import ConfigError
from aae_runner.latents import Code, Codes, Gaussian
from aae_runner.model import Model
from aae_runner.precision import exact_products
from aae_runner.priors import Categorical, Prior

if TYPE_CHECKING:  # matplotlib is slow to import, and the first figure is drawn long after the start
    from matplotlib.figure import Figure


class Projection(NamedTuple):
    """Codes to be turned about by hand, in TensorBoard's projector."""

    codes: Tensor
    """(N, D)."""
    labels: list[str]
    """N names of classes."""
    pictures: Tensor
    """(N, C, H, W) in [0, 1]."""


Findings = dict[str, "float | Figure | Projection"]
"""Metrics (rates are fractions in [0, 1]), figures and projections, by name."""

Every = Annotated[int, Ge(1)] | None
Priors = Mapping[str, Prior]

CHUNK = 250
"""Images encoded at a time: bounds memory."""

AT_ONCE = 2**21
"""Values held as floats at a time (8 MB), where there may be many: bounds memory."""

PROJECTED = 10_000
"""Codes that are put into TensorBoard's projector, at most."""


@dataclass(frozen=True)
class Snapshot:
    """A model at a moment of its training, in evaluation mode, and the split it is looked at with.

    What several evaluators need is computed once.
    """

    model: Model
    priors: Priors
    data: Data
    split: str
    """`valid` during training, `test` at the end."""

    @property
    def images(self) -> Images:
        """The split."""
        return self.data.split(self.split)

    def on(self, split: str) -> "Snapshot":
        """The same model, looked at with another split."""
        return self if split == self.split else replace(self, split=split)

    @property
    def values(self) -> dict[str, Tensor]:
        """The codes of all images of the split: by head, (N, size)."""
        return {name: code.value for name, code in self._codes.items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters of q for all images of the split: by head, (N, ...)."""
        return {name: code.parameters for name, code in self._codes.items()}

    def projection(self) -> Projection:
        """The codes of the first head, of as many images as can be drawn."""
        n = min(PROJECTED, max(1, AT_ONCE // self.images.x[0].numel()))
        images = self.images[:n]
        codes = next(iter(self.values.values()))[:n]
        return Projection(codes, [self.data.names[k] for k in images.y.tolist()], normalize(images.x))

    @cached_property
    def _codes(self) -> Codes:
        return encoded(self.model, self.images)


class Evaluator(ABC):
    """A named entry of the config with its own cadence.

    Args:
        every: epochs between two looks at the validation split; null: only at the end, on the test split.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every

    @abstractmethod
    def __call__(self, snapshot: Snapshot) -> Findings:
        """Looks at a model; called without gradients, from a fixed seed."""


def one_of(known: Iterable[str], name: str, what: str) -> str:
    """The name, if it is known.

    Raises:
        ConfigError: it is not; `what` says what it should have been.
    """
    if name not in known:
        raise ConfigError(f"there is no {what} {name}. Set it, or leave this evaluator out (=null).")
    return name


def encoded(model: Model, images: Images) -> Codes:
    """The codes of all images, (N, ...) by head, computed in parts that fit into memory."""
    whole: Codes = {}
    start = 0
    with torch.no_grad(), exact_products():
        for x, y in images.batches(CHUNK):
            for name, code in model.encode(x, y).items():
                if name not in whole:  # all at once: small pieces among large ones would tear memory apart
                    whole[name] = Code(*(part.new_empty(len(images), *part.shape[1:]) for part in code))
                for part, into in zip(code, whole[name], strict=True):
                    into[start : start + len(x)] = part
            start += len(x)
    return whole


def nearest(x: Tensor, known: Images) -> Tensor:
    """For each of the images x (N, C, H, W) in [0, 1] the index (N,) of the nearest known one, by pixels."""
    best = x.new_full((len(x),), math.inf)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    start = 0
    for others, _ in known.batches(max(1, AT_ONCE // x[0].numel())):
        flat = others.flatten(1)
        # |a - b|² = |a|² - 2ab + |b|²; |a|² is the same for all b
        squares = torch.linalg.vector_norm(flat, dim=1).square()
        distance, place = torch.addmm(squares, x.flatten(1), flat.T, alpha=-2).min(1)
        index = torch.where(distance < best, start + place, index)
        best = torch.minimum(distance, best)
        start += len(flat)
    return index


def contingency(groups: Tensor, y: Tensor, k: int, classes: int) -> NDArray[np.int64]:
    """(K, classes): how many images of each of k groups (N,) have each label (N,)."""
    return np.asarray(torch.bincount(groups * classes + y, minlength=k * classes).view(k, classes).cpu())


class Source:
    """The codes that an evaluator looks at: those of one head, whose prior is not categorical.

    Args:
        model: whose head it is.
        priors: of its heads.
        head: the name of the head.
        sampled: samples of a Gaussian q(z|x), instead of its means.

    Raises:
        ConfigError: there is no such head or prior, or samples are asked of a head that is not Gaussian.
    """

    def __init__(self, model: Model, priors: Priors, head: str, *, sampled: bool = False) -> None:
        self.head = one_of(priors, one_of(model.heads, head, "head"), "prior of the head")
        self.prior = priors[head]
        if isinstance(self.prior, Categorical):
            raise ConfigError(f"the prior of {head} is categorical, and a continuous one is needed.")
        gaussian = model.heads[head]
        self.gaussian = gaussian if isinstance(gaussian, Gaussian) else None
        if sampled and self.gaussian is None:
            raise ConfigError(
                f"sampled=true: the head {head} is not Gaussian, so it has no samples beside its codes."
            )
        self.sampled = sampled
        self.prefix = "sampled_" if sampled else ""
        """Of the names of what is found."""

    def codes(self, snapshot: Snapshot) -> Tensor:
        """(N, size), of all images of the split."""
        if self.sampled and self.gaussian is not None:
            return self.gaussian.sample(snapshot.parameters[self.head])
        return snapshot.values[self.head]

    def called(self, split: str) -> str:
        """What they are, for a title."""
        kind = "samples of q(z|x)" if self.sampled else "means of q(z|x)" if self.gaussian else "codes"
        return f"{kind}, {split} images"
