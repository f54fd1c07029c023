"""Heads: from features to q(z|x) or q(y|x), and how codes meet in front of the decoder.

A head maps features (B, F) and labels (B,) to a `Code`; only `TrueLabel` looks at the labels.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from aae_runner.errors import ConfigError
from aae_runner.networks import batch_norm_layer


class Code(NamedTuple):
    """A minibatch of codes of one head."""

    value: Tensor
    """(B, size): what the decoder and the discriminator see."""
    parameters: Tensor
    """(B, ...): the parameters of q; for a categorical head its logits (B, size)."""


NEVER = -1e4
"""A logit whose probability is 0, and that differs from another by a finite number."""

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

    def forward(self, features: Tensor, y: Tensor) -> Code:
        """(B, features) -> z of (B, size)."""
        z = self.linear(features)
        return Code(value=z, parameters=z)


class Gaussian(nn.Module):
    """q(z|x) is a diagonal Gaussian, sampled by reparametrization (Section 2, Gaussian posterior).

    In evaluation its value is the mean. Its parameters are mean and log variance side by side, (B, 2 size).

    Args:
        features: number of features of the trunk.
        size: dimensions of z. `null` in a yaml means those of the head's prior.
    """

    def __init__(self, features: int, /, *, size: Annotated[int, Ge(1)]) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(features, 2 * size)

    def forward(self, features: Tensor, y: Tensor) -> Code:
        """(B, features) -> z of (B, size)."""
        parameters = self.linear(features)
        z = self.sample(parameters) if self.training else parameters[:, : self.size]
        return Code(value=z, parameters=parameters)

    def sample(self, parameters: Tensor) -> Tensor:
        """(B, 2 size), mean and log variance -> z of (B, size)."""
        mean, log_variance = parameters.chunk(2, dim=1)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


class UniversalApproximator(nn.Module):
    """z is a nonlinear function of the features and of noise (Section 2, universal approximator posterior).

    Args:
        features: number of features of the trunk.
        size: dimensions of z. `null` in a yaml means those of the head's prior.
        noise: dimensions of the Gaussian noise.
        width: hidden units of the layer that mixes features and noise.
    """

    def __init__(
        self,
        features: int,
        /,
        *,
        size: Annotated[int, Ge(1)],
        noise: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(1)],
    ) -> None:
        super().__init__()
        self.size, self.noise = size, noise
        self.mix = nn.Sequential(nn.Linear(features + noise, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, features: Tensor, y: Tensor) -> Code:
        """(B, features) -> z of (B, size); another one at each call."""
        noise = torch.randn(len(features), self.noise, device=features.device)
        z = self.mix(torch.cat([features, noise], dim=1))
        return Code(value=z, parameters=z)


class TrueLabel(nn.Module):
    """y is given, not inferred: the decoder is told the class of the image (Section 4, supervised).

    Args:
        features: unused.
        size: number of classes.
    """

    def __init__(self, features: int, /, *, size: Annotated[int, Ge(2)]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("classes", torch.arange(size), persistent=False)
        self.classes: Tensor

    def forward(self, features: Tensor, y: Tensor) -> Code:
        """y (B,) -> one-hot (B, size); a hidden label (= size) is all zeros."""
        one_hot = (y.unsqueeze(1) == self.classes).to(features.dtype)
        return Code(value=one_hot, parameters=one_hot)


class Categorical(nn.Module):
    """q(y|x), a softmax over classes or clusters (Sections 5 and 6).

    Training uses the softmax itself wherever y is needed; it is never sampled. Where clusters may merge, each
    is the sum of those that it was made of, and those no longer occur.

    Args:
        features: number of features of the trunk.
        size: number of classes or clusters.
        batch_norm: normalize the logits over the minibatch.
        layer_norm: normalize the features of each image first, so that none is surer of its class than
            another for having larger features.
        spread: standard deviation of each logit over the minibatch, its mean being 0: batch norm with a fixed
            gain and no bias. A class that can neither sink nor shrink stays in play; left to itself, one
            that no image chooses gets no gradient and stays empty. `null` in a yaml: gain and bias are
            learned, if there is batch norm at all.

    Raises:
        ConfigError: a spread without batch norm.
    """

    def __init__(
        self,
        features: int,
        /,
        *,
        size: Annotated[int, Ge(2)],
        batch_norm: bool = False,
        layer_norm: bool = False,
        spread: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        if spread is not None and not batch_norm:
            raise ConfigError(f"spread={spread} is that of batch norm: set batch_norm=true, or spread=null.")
        self.size = size
        self.normalize = nn.LayerNorm(features, elementwise_affine=False) if layer_norm else nn.Identity()
        self.linear = _linear(features, size, batch_norm, affine=spread is None)
        self.gain = 1.0 if spread is None else spread
        self.register_buffer("members", None)
        self.members: Tensor | None

    def may_merge(self) -> None:
        """From now on there is `members`, (size, size) bool: in [i, k] whether i now belongs to cluster k."""
        self.members = torch.eye(self.size, dtype=torch.bool)

    def merge(self, one: int, other: int) -> None:
        """From now on what belonged to cluster `other` belongs to cluster `one`; `may_merge` comes first."""
        assert self.members is not None
        self.members[:, one] |= self.members[:, other]
        self.members[:, other] = False

    def forward(self, features: Tensor, y: Tensor) -> Code:
        """(B, features) -> y of (B, size), rows of which sum to 1, and its logits."""
        logits = self.gain * self.linear(self.normalize(features))
        y = logits.softmax(1)
        if self.members is not None:
            y = y @ self.members.to(y.dtype)
            sums = logits.double().softmax(1) @ self.members.double()  # which goes down to e^-745
            gone = sums == 0  # log's slope is infinite there, and infinite times 0 is no number
            exact = sums.masked_fill(gone, 1).log().masked_fill(gone, NEVER)
            logits = exact.clamp_min(NEVER).to(logits.dtype)
        return Code(value=y, parameters=logits)


def _linear(features: int, size: int, batch_norm: bool, *, affine: bool = True) -> nn.Module:
    if not batch_norm:
        return nn.Linear(features, size)
    return nn.Sequential(nn.Linear(features, size, bias=False), batch_norm_layer(size, affine=affine))


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


class ClusterHeads(nn.Module):
    """The decoder sees W_C y + z: each class or cluster has a head, and z is the place around it (Section 7).

    Args:
        sizes: dimensions of each head's code, by its name.
        style: the name of z.
        label: the name of y.
        scale: fixes W_C to scale times the identity, for as many dimensions as classes; null: W_C is learned.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        /,
        *,
        style: str = "style",
        label: str = "label",
        scale: Annotated[float, Gt(0)] | None,
    ) -> None:
        super().__init__()
        if {style, label} - set(sizes):
            raise ConfigError(f"it needs heads {style} and {label}; there are {', '.join(sizes)}.")
        self.style, self.label, self.size = style, label, sizes[style]
        if scale is None:
            self.heads = nn.Parameter(torch.randn(sizes[label], self.size))
        elif sizes[label] == self.size:
            self.register_buffer("heads", scale * torch.eye(self.size))
        else:
            raise ConfigError(
                f"scale={scale} needs as many dimensions of z ({self.size}) as classes ({sizes[label]})."
            )

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """z (B, D) and y (B, K) -> (B, D)."""
        return values[self.label] @ self.heads + values[self.style]
