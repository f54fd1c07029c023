"""Priors p(z) and p(y): what the codes are pushed towards.

A prior is built with the size of its head (None where the head leaves it to the prior) and has
`dimension` and `sample(n, labels=None)`. Its buffers carry its device.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aae_runner.errors import ConfigError


class Prior(nn.Module):
    """What all priors have in common.

    Args:
        dimension: of one sample.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.register_buffer("origin", torch.zeros(dimension), persistent=False)
        self.origin: Tensor

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """n samples, (n, dimension); with labels (n,) each is drawn from its label's part of the prior."""
        raise NotImplementedError

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) at points (N, dimension) -> (N,).

        Raises:
            ConfigError: this prior has no density.
        """
        raise ConfigError(f"the prior {type(self).__name__} has no density.")


class Gaussian(Prior):
    """N(0, std² I); it has no parts, so labels change nothing.

    Args:
        size: dimension of the head.
        std: standard deviation in each dimension.
    """

    def __init__(self, size: int | None, /, *, std: Annotated[float, Gt(0)]) -> None:
        if size is None:
            raise ConfigError("it has no dimension of its own; set the size of its head.")
        super().__init__(size)
        self.std = std

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`."""
        return self.std * torch.randn(n, self.dimension, device=self.origin.device)


class GaussianMixture(Prior):
    """A star of 2-D Gaussians, long in their radial and narrow in their tangential direction (Figs. 2, 4).

    Component k has its mean at the angle 2πk/components. The geometry is measured off Figure 2.

    Args:
        size: of the head; a head of another size than 2 is refused where the model is assembled.
        components: number of Gaussians; label k has component k.
        radius: distance of the means from the origin.
        radial_std: standard deviation along the ray from the origin.
        tangential_std: standard deviation across it.
    """

    def __init__(
        self,
        size: int | None,
        /,
        *,
        components: Annotated[int, Ge(2)],
        radius: Annotated[float, Ge(0)],
        radial_std: Annotated[float, Gt(0)],
        tangential_std: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(2)
        self.components, self.radius = components, radius
        self.register_buffer("stds", torch.tensor([radial_std, tangential_std]), persistent=False)
        self.stds: Tensor

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; labels lie in 0 .. components - 1."""
        device = self.origin.device
        k = labels if labels is not None else torch.randint(self.components, (n,), device=device)
        along, across = (torch.randn(n, 2, device=device) * self.stds).unbind(1)
        radius, angle = self.radius + along, k * (2 * math.pi / self.components)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([radius * cos - across * sin, radius * sin + across * cos], dim=1)  # (n, 2)


class Categorical(Prior):
    """One-hot y of classes or clusters, all equally likely (Sections 5 and 6).

    Args:
        size: number of classes, from the head.
    """

    def __init__(self, size: int | None, /) -> None:
        if size is None:
            raise ConfigError("it has no dimension of its own; set the size of its head.")
        super().__init__(size)

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; labels lie in 0 .. size - 1."""
        k = labels if labels is not None else torch.randint(self.dimension, (n,), device=self.origin.device)
        return F.one_hot(k, self.dimension).to(self.origin.dtype)
