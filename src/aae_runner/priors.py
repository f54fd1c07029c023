"""Priors p(z) and p(y): what the codes are pushed towards.

A prior is built with the size of its head (None where the head leaves it to the prior) and has
`dimension`, `sample(n, labels=None)` and, where it has them, `log_density(z, labels=None)` and a `manifold`
of places to decode. Its buffers carry its device.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from aae_runner.errors import ConfigError

PLACES = 2000, 100_000
"""Along the Swiss roll, whose density is an equal mixture of Gaussians there: the fewest, the most."""


class Prior(nn.Module, ABC):
    """What all priors have in common.

    Args:
        dimension: of one sample.
        parts: labels that it can be sampled under; None: any, for they change nothing.
    """

    bounded = False
    """Whether the density is 0 somewhere."""

    def __init__(self, dimension: int, parts: int | None = None) -> None:
        super().__init__()
        self.dimension, self.parts = dimension, parts
        self.register_buffer("origin", torch.zeros(dimension), persistent=False)
        self.origin: Tensor

    @abstractmethod
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """n samples, (n, dimension); with labels (n,) each is drawn from its label's part of the prior."""

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z) in nats, (N,), of points z (N, dimension); with labels (N,) of each label's part.

        Raises:
            NotImplementedError: the prior has no density, or none that is known.
        """
        raise NotImplementedError

    @property
    def has_density(self) -> bool:
        """Whether `log_density` is known."""
        return type(self).log_density is not Prior.log_density

    def manifold(self, rows: int, columns: int) -> dict[str, Tensor]:
        """Where to decode so that all of the prior is seen, evenly in its mass (Figs. 2e and 4).

        Returns:
            Codes (rows, columns, dimension) by title; nothing, where the prior has no percentiles.
        """
        return {}

    def _plane(self, rows: int, columns: int) -> Tensor:
        """Percentiles (rows, columns, dimension): the first rises to the right, the second upwards."""
        middle = torch.full((rows, columns, self.dimension), 0.5, device=self.origin.device)
        right, up = ((torch.arange(k, device=middle.device) + 0.5) / k for k in (columns, rows))
        axes = torch.stack(torch.meshgrid(up.flip(0), right, indexing="ij")[::-1], dim=2)
        middle[..., :2] = axes[..., : self.dimension]
        return middle


class Gaussian(Prior):
    """N(0, std² I); it has no parts, so labels change nothing.

    Args:
        size: dimension of the head.
        std: standard deviation in each dimension.
    """

    def __init__(self, size: int | None, /, *, std: Annotated[float, Gt(0)]) -> None:
        super().__init__(_of_head(size))
        self.std = std

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`."""
        return self.std * torch.randn(n, self.dimension, device=self.origin.device)

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Prior.log_density`."""
        return _log_normal(z, self.std).sum(1)

    def manifold(self, rows: int, columns: int) -> dict[str, Tensor]:
        """See `Prior.manifold`: the first two dimensions, the others at their median."""
        return {
            "percentiles of the first two dimensions": self.std
            * torch.special.ndtri(self._plane(rows, columns))
        }


class Uniform(Prior):
    """Uniform in the box [-half_width, half_width]^D; it has no parts, so labels change nothing.

    Args:
        size: dimension of the head.
        half_width: half the length of an edge.
    """

    bounded = True

    def __init__(self, size: int | None, /, *, half_width: Annotated[float, Gt(0)]) -> None:
        super().__init__(_of_head(size))
        self.half_width = half_width

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`."""
        return self.half_width * (2 * torch.rand(n, self.dimension, device=self.origin.device) - 1)

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Prior.log_density`; -inf outside the box."""
        inside = (z.abs() <= self.half_width).all(1)
        level = -self.dimension * math.log(2 * self.half_width)
        return torch.full_like(z[:, 0], level).masked_fill(~inside, -math.inf)

    def manifold(self, rows: int, columns: int) -> dict[str, Tensor]:
        """See `Prior.manifold`: the first two dimensions, the others at their median."""
        return {"the first two dimensions": self.half_width * (2 * self._plane(rows, columns) - 1)}


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
        super().__init__(2, parts=components)
        self.components, self.radius = components, radius
        self.radial_std, self.tangential_std = radial_std, tangential_std
        self.register_buffer("stds", torch.tensor([radial_std, tangential_std]), persistent=False)
        self.stds: Tensor

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; labels lie in 0 .. components - 1."""
        device = self.origin.device
        k = labels if labels is not None else torch.randint(self.components, (n,), device=device)
        return self._turned(torch.randn(n, 2, device=device) * self.stds, k)

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Prior.log_density`."""
        cos, sin = self._directions(torch.arange(self.components, device=z.device))
        x, y = z[:, :1], z[:, 1:]
        # each point in the axes of each component, (N, components)
        along, across = x * cos + y * sin - self.radius, y * cos - x * sin
        log_densities = _log_normal(along, self.radial_std) + _log_normal(across, self.tangential_std)
        if labels is not None:
            return log_densities.gather(1, labels.unsqueeze(1)).squeeze(1)
        return log_densities.logsumexp(1) - math.log(self.components)

    def manifold(self, rows: int, columns: int) -> dict[str, Tensor]:
        """See `Prior.manifold`: each component on the percentiles of its own axes, the long one across."""
        axes = (torch.special.ndtri(self._plane(rows, columns)) * self.stds).flatten(0, 1)
        parts = {}
        for k in range(self.components):
            turned = self._turned(axes, torch.full((len(axes),), k, device=axes.device))
            parts[f"component {k}"] = turned.unflatten(0, (rows, columns))
        return parts

    def _turned(self, axes: Tensor, k: Tensor) -> Tensor:
        """Places (n, 2) in the axes of components k (n,), relative to their means, -> z (n, 2)."""
        cos, sin = self._directions(k)
        along, across = axes[:, 0] + self.radius, axes[:, 1]
        return torch.stack([along * cos - across * sin, along * sin + across * cos], dim=1)

    def _directions(self, k: Tensor) -> tuple[Tensor, Tensor]:
        angle = k * (2 * math.pi / self.components)
        return angle.cos(), angle.sin()


class SwissRoll(Prior):
    """A spiral with Gaussian noise (Fig. 4, right): z = (t cos t, t sin t) + N(0, std² I), t = 2π turns √u.

    u is uniform in [0, 1], which is nearly uniform in the length of the roll too. Label k owns the segment
    k/segments <= u <= (k + 1)/segments. The geometry is measured off Figure 4.

    Args:
        size: of the head; a head of another size than 2 is refused where the model is assembled.
        turns: windings; the roll ends at the radius 2π turns.
        segments: number of labels.
        std: of the noise, in each dimension.

    Raises:
        ConfigError: the roll is too long for its width.
    """

    def __init__(
        self,
        size: int | None,
        /,
        *,
        turns: Annotated[float, Gt(0)],
        segments: Annotated[int, Ge(1)],
        std: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(2, parts=segments)
        self.turns, self.segments, self.std = turns, segments, std
        length, (fewest, most) = 2 * (math.pi * turns) ** 2, PLACES
        self.places = segments * math.ceil(max(fewest, 2 * length / std) / segments)
        """Two per std of the roll's length or more, as many in each segment."""
        if self.places > most:
            raise ConfigError(
                f"turns={turns}, segments={segments} and std={std}: so long and narrow a roll has no density "
                f"here, an integral over {self.places:,} places. Raise std, or lower the others."
            )

    def point(self, u: Tensor) -> Tensor:
        """The points (n, 2) of the roll without noise at the places u (n,) in [0, 1]."""
        t = 2 * math.pi * self.turns * u.sqrt()
        return torch.stack([t * t.cos(), t * t.sin()], dim=1)

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; labels lie in 0 .. segments - 1."""
        device = self.origin.device
        u = torch.rand(n, device=device)
        if labels is not None:
            u = (labels + u) / self.segments
        return self.point(u) + self.std * torch.randn(n, 2, device=device)

    def log_density(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Prior.log_density`; the integral over u becomes a mean over `places`."""
        u = (torch.arange(self.places, device=z.device) + 0.5) / self.places
        # by differences: lengths and products would lose digits
        distances = torch.cdist(
            z, self.point(u).to(z), compute_mode="donot_use_mm_for_euclid_dist"
        )  # (N, places)
        exponents = -0.5 * (distances / self.std).square()
        parts = 1
        if labels is not None:
            segment, parts = (u * self.segments).long(), self.segments
            exponents = exponents.masked_fill(segment != labels.unsqueeze(1), -math.inf)
        return exponents.logsumexp(1) - math.log(self.places / parts * 2 * math.pi * self.std**2)

    def manifold(self, rows: int, columns: int) -> dict[str, Tensor]:
        """See `Prior.manifold`: one walk along the roll, row by row."""
        u = (torch.arange(rows * columns, device=self.origin.device) + 0.5) / (rows * columns)
        return {"along the roll, row by row": self.point(u).unflatten(0, (rows, columns))}


class Categorical(Prior):
    """One-hot y of classes or clusters, all equally likely (Sections 5 and 6) unless some have merged.

    Args:
        size: number of classes, from the head.
    """

    def __init__(self, size: int | None, /) -> None:
        super().__init__(_of_head(size), parts=size)
        self.register_buffer("corners", torch.eye(self.dimension), persistent=False)
        self.corners: Tensor
        self._members: Callable[[], Tensor | None] = lambda: None

    def follow(self, members: Callable[[], Tensor | None]) -> None:
        """From now on what is drawn are the clusters, in `members()`, of classes that are equally likely.

        Args:
            members: (size, size) bool, in [i, k] whether i belongs to cluster k; None: each is its own.
        """
        self._members = members

    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """See `Prior.sample`; labels lie in 0 .. size - 1; of merged ones that of their cluster."""
        k = torch.randint(self.dimension, (n,), device=self.origin.device) if labels is None else labels
        members = self._members()
        return self.corners[k] if members is None else members[k].to(self.corners.dtype)


def _of_head(size: int | None) -> int:
    if size is None:
        raise ConfigError("it has no dimension of its own; set the size of its head.")
    return size


def _log_normal(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std²), elementwise."""
    return -0.5 * (x / std).square() - math.log(std * math.sqrt(2 * math.pi))
