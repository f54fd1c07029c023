"""How well codes match their prior: q(z) against p(z) (Section 2 and Figure 2, in numbers).

Each measure has a value at a perfect match that depends on the number of codes; `prior_match` gives it
beside the measure, as that of a fresh sample of the prior.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aae_runner.priors import Prior

SAMPLES = 2**20
"""Of the prior, by which it is cut into cells."""

FEWER = 2**15
"""Of the prior, by which its lowest density is found; all that are drawn where there are no cells."""

DIRECTIONS = 128
"""On which the sliced distance projects; the same in every run."""

BANDWIDTHS = (0.125, 0.5, 2.0)
"""Of the kernels, in units of the median distance of two samples of the prior."""

CHUNK = 2000
"""Points that are compared at a time: bounds memory."""


def prior_match(z: Tensor, prior: Prior) -> dict[str, float]:
    """Every measure of codes, and as `<measure>_reference` that of a prior sample of the same size.

    Draws from torch's global generator.

    Args:
        z: (N, D) codes.
        prior: what they should be distributed as.

    Returns:
        `coverage` and `mass_error` in [0, 1] (codes of up to three dimensions), `outside` in [0, 1] (priors
        whose density is known), `sliced_wasserstein` in units of z, `squared_mmd`.
    """
    n, dimension = z.shape
    samples = prior.sample(SAMPLES if dimension <= 3 else FEWER)
    cells = median_cells(samples, 2 ** max(0, (n // 8).bit_length() - 1)) if dimension <= 3 else None
    floor = _floor(samples[:FEWER], prior)
    widths = median_distance(samples[:CHUNK])
    other, directions = prior.sample(n), fixed_directions(dimension, z.device)

    def measure(points: Tensor) -> dict[str, float]:
        found: dict[str, float] = {}
        if cells is not None:
            counts = cells.counts(points)
            found |= {"coverage": coverage(counts), "mass_error": mass_error(counts)}
        if floor is not None:
            found["outside"] = outside(_log_density(points, prior), floor)
        found["sliced_wasserstein"] = sliced_wasserstein(points, other, directions)
        found["squared_mmd"] = squared_mmd(points, other, [widths * width for width in BANDWIDTHS])
        return found

    fresh = measure(prior.sample(n))
    return measure(z) | {f"{name}_reference": value for name, value in fresh.items()}


class Cells(NamedTuple):
    """A partition of space by halving: a balanced k-d tree."""

    thresholds: list[Tensor]
    """Of level l, (2^l,): where each part is cut, across the axis l modulo the dimension."""

    def counts(self, z: Tensor) -> Tensor:
        """Points z (N, D) in each cell, (cells,)."""
        cell = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        for level, thresholds in enumerate(self.thresholds):
            cell = 2 * cell + (z[:, level % z.shape[1]] >= thresholds[cell])
        return cell.bincount(minlength=2 ** len(self.thresholds))


def median_cells(samples: Tensor, cells: int) -> Cells:
    """Cuts space into cells that hold equally many samples, by medians along each axis in turn.

    Args:
        samples: (S, D), S a power of two.
        cells: a power of two, at most S.
    """
    dimension = samples.shape[1]
    parts, thresholds = samples.unsqueeze(0), []  # (parts, samples in each, D)
    for level in range(cells.bit_length() - 1):
        axis = level % dimension
        order = parts[..., axis].argsort(1)
        parts = parts.take_along_dim(order.unsqueeze(2), dim=1)
        half = parts.shape[1] // 2
        thresholds.append(parts[:, half, axis])
        parts = parts.reshape(-1, half, dimension)  # the lower half of part i is part 2i, the upper 2i + 1
    return Cells(thresholds)


def coverage(counts: Tensor) -> float:
    """Share of cells that hold a point; of N points of the prior in M cells 1 - (1 - 1/M)^N is expected."""
    return float((counts > 0).double().mean())


def mass_error(counts: Tensor) -> float:
    """Total variation between the points' distribution over equal cells and the uniform one, in [0, 1)."""
    return 0.5 * float((counts.double() / counts.sum() - 1 / len(counts)).abs().sum())


def outside(log_density: Tensor, floor: float) -> float:
    """Share of points whose log p(z) (N,) is below `floor`, the prior's own 1 % quantile.

    0.01 is expected of the prior; 0 where its density is constant.
    """
    return float((log_density < floor).double().mean())


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Sliced 2-Wasserstein distance: root of the mean over directions of the squared distance on a line.

    Args:
        a: (N, D).
        b: (N, D), as many.
        directions: (K, D), unit vectors.
    """
    a, b = ((points @ directions.T).sort(0).values for points in (a, b))
    return math.sqrt(float((a - b).square().double().mean()))


def fixed_directions(dimension: int, device: torch.device) -> Tensor:
    """(DIRECTIONS, dimension) unit vectors, isotropic, from a seed of their own."""
    normal = torch.randn(DIRECTIONS, dimension, generator=torch.Generator().manual_seed(0))
    return F.normalize(normal, dim=1).to(device)


def squared_mmd(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> float:
    """Squared maximum mean discrepancy, unbiased: about 0, of either sign, where a and b are alike.

    The kernel is the mean over bandwidths h of exp(-|x - y|² / 2h²).

    Args:
        a: (N, D).
        b: (M, D).
        bandwidths: h, in units of the points.
    """

    def kernel_sum(x: Tensor, y: Tensor) -> float:
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for rows in x.split(CHUNK):
            for columns in y.split(CHUNK):
                # distances by differences: exact where points are near
                squares = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist").square_()
                for width in bandwidths:
                    total += (squares * (-0.5 / width**2)).exp_().sum()
        return float(total) / len(bandwidths)

    n, m = len(a), len(b)
    # less the pairs of a point with itself, whose kernel is 1
    within = (kernel_sum(a, a) - n) / (n * (n - 1)) + (kernel_sum(b, b) - m) / (m * (m - 1))
    return within - 2 * kernel_sum(a, b) / (n * m)


def median_distance(samples: Tensor) -> float:
    """Median of the distances of all pairs of samples (S, D)."""
    return float(F.pdist(samples).median())


def _log_density(z: Tensor, prior: Prior) -> Tensor:
    return torch.cat([prior.log_density(part) for part in z.split(CHUNK)])


def _floor(samples: Tensor, prior: Prior) -> float | None:
    """The 1 % quantile of log p(z) under p; None for a prior whose density is not known."""
    return float(_log_density(samples, prior).quantile(0.01)) if prior.has_density else None
