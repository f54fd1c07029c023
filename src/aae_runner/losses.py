"""The paper's losses: pure functions of tensors, averaged over the minibatch."""

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
    return 0.5 * (decoded - x).square().flatten(1).sum(1).mean()


def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(prior sample) - log(1 - D(code)) (Equation 1; Section 2, regularization phase).

    Args:
        real: (B,), logits of D on samples of the prior.
        fake: (B,), logits of D on codes.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator(fake: Tensor) -> Tensor:
    """-log D(code): what the encoder lowers to fool D (Section 2; the non-saturating form).

    Args:
        fake: (B,), logits of D on codes.
    """
    return F.softplus(-fake).mean()


def classification(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of q(y|x) (Section 5, semi-supervised classification phase).

    Args:
        logits: (B, classes), before the softmax.
        y: (B,), labels.
    """
    return F.cross_entropy(logits, y)
