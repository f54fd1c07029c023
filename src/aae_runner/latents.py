"""Heads: from features to q(z|x) or q(y|x), and how codes meet in front of the decoder."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn

from aae_runner.networks import batch_norm_layer


class Code(NamedTuple):
    """A minibatch of codes of one head."""

    value: Tensor
    """(B, size): what the decoder and the discriminator see."""
    parameters: Tensor
    """(B, ...): the parameters of q; for a categorical head its logits (B, size)."""


Codes = dict[str, Code]
"""The codes of all heads, by name, in the order of the config."""


class Deterministic(nn.Module):
    """z is a linear function of the features (Section 2, deterministic encoder).

    Args:
        features: number of features of the trunk.
        size: dimensions of z. `null` in a yaml means those of the head's prior.
        batch_norm: normalize z over the minibatch.
    """

    def __init__(self, features: int, /, *, size: Annotated[int, Ge(1)], batch_norm: bool = False) -> None:
        super().__init__()
        self.size = size
        self.linear = _linear(features, size, batch_norm)

    def forward(self, features: Tensor) -> Code:
        """(B, features) -> z of (B, size)."""
        z = self.linear(features)
        return Code(value=z, parameters=z)


class Categorical(nn.Module):
    """q(y|x), a softmax over classes or clusters (Sections 5 and 6).

    Training uses the softmax itself wherever y is needed; it is never sampled.

    Args:
        features: number of features of the trunk.
        size: number of classes or clusters.
        batch_norm: normalize the logits over the minibatch.
    """

    def __init__(self, features: int, /, *, size: Annotated[int, Ge(2)], batch_norm: bool = False) -> None:
        super().__init__()
        self.size = size
        self.linear = _linear(features, size, batch_norm)

    def forward(self, features: Tensor) -> Code:
        """(B, features) -> y of (B, size), rows of which sum to 1, and its logits."""
        logits = self.linear(features)
        return Code(value=logits.softmax(1), parameters=logits)


def _linear(features: int, size: int, batch_norm: bool) -> nn.Module:
    if not batch_norm:
        return nn.Linear(features, size)
    return nn.Sequential(nn.Linear(features, size, bias=False), batch_norm_layer(size))


class Concatenate(nn.Module):
    """The decoder sees all codes side by side.

    Args:
        sizes: dimensions of each head's code, by its name.
    """

    def __init__(self, sizes: Mapping[str, int], /) -> None:
        super().__init__()
        self.names = list(sizes)
        self.size = sum(sizes.values())

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """{name: (B, size of the head)} -> (B, sum of sizes)."""
        return torch.cat([values[name] for name in self.names], dim=1)
