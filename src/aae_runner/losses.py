"""The paper's losses: pure functions of tensors, averaged over the minibatch."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction(x: Tensor, decoded: Tensor) -> Tensor:
    """Half the squared Euclidean distance, summed over pixels (Section 2, reconstruction phase).

    A mean over pixels would be weaker by their number (392 for half the square on 28x28), and under SGD
    that is another learning rate.

    Args:
        x: (B, C, H, W), clean images.
        decoded: (B, C, H, W).
    """
    return 0.5 * (_full(decoded) - x).square().flatten(1).sum(1).mean()


def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(prior sample) - log(1 - D(code)) (Equation 1; Section 2, regularization phase).

    Args:
        real: (B,), logits of D on samples of the prior.
        fake: (B,), logits of D on codes.
    """
    return F.softplus(-_full(real)).mean() + F.softplus(_full(fake)).mean()


def generator(fake: Tensor) -> Tensor:
    """-log D(code): what the encoder lowers to fool D (Section 2; the non-saturating form).

    Args:
        fake: (B,), logits of D on codes.
    """
    return F.softplus(-_full(fake)).mean()


def classification(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of q(y|x) (Section 5, semi-supervised classification phase).

    Args:
        logits: (B, classes), before the softmax.
        y: (B,), labels.
    """
    return F.cross_entropy(_full(logits), y)


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p || q) of two distributions over classes, p and q by their logits: (B, K) each.

    Args:
        logits: of p.
        others: of q.
    """
    log_p, log_q = (_full(values).log_softmax(1) for values in (logits, others))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def head_distance(heads: Tensor, threshold: float, there: Tensor | None = None) -> Tensor:
    """Sum over pairs of max(0, threshold - |w_i - w_j|): keeps cluster heads apart (Section 7).

    Args:
        heads: (K, D), one head a row.
        threshold: distance from which two heads no longer repel each other.
        there: (K,) bool, which of them count; None: all.
    """
    push = (threshold - F.pdist(heads)).clamp_min(0)
    if there is not None:
        one, other = torch.triu_indices(len(heads), len(heads), 1, device=heads.device)  # as pdist has them
        push = push * (there[one] & there[other])
    return push.sum()


def bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """-log p(x|z) of pixels in [0, 1] under Bernoulli means, summed over pixels.

    Args:
        x: (B, C, H, W).
        logits: (B, C, H, W), before the sigmoid.
    """
    return F.binary_cross_entropy_with_logits(_full(logits), x, reduction="sum") / len(x)


def kl_to_gaussian(mean: Tensor, log_variance: Tensor, std: float) -> Tensor:
    """KL(q(z|x) || N(0, std² I)) of a diagonal Gaussian q, in closed form; the textbook's has std 1.

    Args:
        mean: (B, D).
        log_variance: (B, D).
        std: of the prior, in each dimension.
    """
    mean, log_variance = _full(mean), _full(log_variance)
    variance = log_variance.exp()
    terms = math.log(std) - 0.5 * log_variance + (variance + mean.square()) / (2 * std**2) - 0.5
    return terms.sum(1).mean()


def log_gaussian(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, variance) of a diagonal Gaussian: (B, D) each -> (B,)."""
    z, mean, log_variance = _full(z), _full(mean), _full(log_variance)
    terms = math.log(2 * math.pi) + log_variance + (z - mean).square() * (-log_variance).exp()
    return -0.5 * terms.sum(1)


def _full(x: Tensor) -> Tensor:
    """In float32 at least: a loss is not to be summed in bfloat16, whatever the networks compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
