"""Log-likelihood of images by a Gaussian Parzen window over generated images (Section 3, Table 1).

log p(x) = log of the mean over samples s of N(x; s, sigma² I). Sigma is chosen on validation images.

The estimate rises without limit as precision falls: a squared distance that is too small by chance counts
exponentially more than one that is too large, and 2 sigma² divides both by as little as 0.005. So distances
and sums are float64, and only the bounded terms of the sums are float32. The decoder that makes the
samples must run at the highest precision too.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SIGMAS = tuple(0.05 * 10 ** (k / 19) for k in range(20))
"""20 window widths from 0.05 to 0.5, evenly spaced on the logarithmic scale; one between may be chosen."""

FURTHER = 3
"""How often 20 others are tried, next to these, where the best is the narrowest or the widest: one in eight
thousand of the pixel range is met only by samples that are images."""

CHUNK = 2000
"""Samples, and images, that are compared at a time: bounds memory."""

Draw = Callable[[], Iterable[Tensor]]
"""Each call yields the same samples, in chunks (n, D) of some thousand; they need never exist all at once."""


class Estimate(NamedTuple):
    """What Table 1 prints, in nats."""

    log_likelihood: float
    """Mean over the images."""
    standard_error: float
    """Of this mean, from the spread over the images; the error of the samples is not in it."""
    sigma: float
    """The window width that validation images chose."""


def estimate(images: Tensor, valid: Tensor, draw: Draw) -> Estimate:
    """The Parzen estimate; draws the samples twice, once for the choice of sigma (or more often: `FURTHER`).

    Args:
        images: (N, D), what is scored.
        valid: (V, D), on which sigma is chosen: the width with their highest mean log-likelihood.
        draw: see `Draw`.
    """
    sigmas = SIGMAS
    means = log_likelihoods(valid, draw(), sigmas).mean(0)
    for _ in range(FURTHER):
        best = int(means.argmax())
        if best not in (0, len(sigmas) - 1):
            break
        shift = (SIGMAS[1] / SIGMAS[0]) ** (len(SIGMAS) - 2)  # two stay, so that the best has neighbors
        sigmas = tuple(sigma * shift if best else sigma / shift for sigma in sigmas)
        means = log_likelihoods(valid, draw(), sigmas).mean(0)
    sigma = _best_sigma(means, sigmas)
    values = log_likelihoods(images, draw(), [sigma])
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))), sigma)


def _best_sigma(means: Tensor, sigmas: Sequence[float]) -> float:
    """The top of a parabola in log sigma through the best of `sigmas` and its two neighbors.

    D pixels lose D delta² nats where sigma is wrong by a share of delta: on MNIST, half a step
    costs 2.9 nats, more than what is told apart.

    Args:
        means: mean log-likelihood under each of `sigmas`, in nats.
        sigmas: widths, evenly spaced on the logarithmic scale.
    """
    best = int(means.argmax())
    if best in (0, len(sigmas) - 1):
        return sigmas[best]
    left, top, right = (float(v) for v in means[best - 1 : best + 2])
    steps = 0.5 * (left - right) / (left - 2 * top + right)  # the first of equals is the best: left < top
    return sigmas[best] * math.exp(steps * math.log(sigmas[1] / sigmas[0]))


def log_likelihoods(images: Tensor, chunks: Iterable[Tensor], sigmas: Sequence[float]) -> Tensor:
    """log p(x) in nats of each image under each window width, (N, len(sigmas)), float64.

    Args:
        images: (N, D).
        chunks: samples, (n, D) each; read once.
        sigmas: window widths.
    """
    images = images.double()
    totals = images.new_full((len(images), len(sigmas)), -math.inf)
    count = 0
    for chunk in chunks:
        samples = chunk.double()
        lengths = samples.square().sum(1)
        for x, total in zip(images.split(CHUNK), totals.split(CHUNK), strict=True):
            squares = torch.addmm(lengths, x, samples.T, alpha=-2)  # |x - s|², less the |x|² of its row
            sums = _log_sums(squares, x.square().sum(1), sigmas)
            total.copy_(torch.logaddexp(total, sums))  # a view of totals
        count += len(chunk)
    dimension = images.shape[1]
    normalizers = [math.log(count) + dimension * math.log(s * math.sqrt(2 * math.pi)) for s in sigmas]
    return totals - totals.new_tensor(normalizers)


def _log_sums(squares: Tensor, more: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log of the sum over columns of exp(-(squares + more) / 2 sigma²), (rows, len(sigmas)).

    Args:
        squares: (rows, columns); used up.
        more: (rows,).
        sigmas: window widths.
    """
    nearest = squares.amin(1)
    excess = squares.sub_(nearest.unsqueeze(1)).float()  # the largest term of each sum is 1
    columns = []
    for sigma in sigmas:
        scale = -0.5 / sigma**2
        # a smaller term adds nothing to a sum whose largest is 1, and exp takes ten times as long for it
        terms = (scale * excess).clamp_min_(-80)
        columns.append(terms.exp_().sum(1).double().log() + scale * (nearest + more))
    return torch.stack(columns, dim=1)
