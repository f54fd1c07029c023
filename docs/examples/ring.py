"""A prior of your own: points around a circle."""

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from aae_runner.priors import Prior


class Ring(Prior):
    """A circle with Gaussian noise along its radius.

    Args:
        size: of the head, from the program; the ring is 2-D whatever it is.
        radius: of the circle.
        std: standard deviation of the noise.
    """

    def __init__(
        self, size: int | None, /, *, radius: Annotated[float, Gt(0)], std: Annotated[float, Gt(0)]
    ) -> None:
        super().__init__(2)
        self.radius, self.std = radius, std

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; it has no parts, so labels change nothing."""
        device = self.origin.device
        angle = 2 * math.pi * torch.rand(n, device=device)
        r = self.radius + self.std * torch.randn(n, device=device)
        return torch.stack([r * angle.cos(), r * angle.sin()], dim=1)

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Prior.log_density`; optional, but the measure `outside` and `variant=vae` need it."""
        r = z.norm(dim=1)
        # noise may carry a sample through the center, so -r leads to the same place as r
        both = torch.stack([r - self.radius, r + self.radius]) / self.std
        log_normal = -0.5 * both.square() - math.log(self.std * math.sqrt(2 * math.pi))
        log_density: Tensor = log_normal.logsumexp(0) - (2 * math.pi * r).log()
        return log_density
