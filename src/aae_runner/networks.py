"""Trunks: from a shape to features, from codes to a shape."""

import math
from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from aae_runner.errors import ConfigError

Shape = tuple[int, ...]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU,
    "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip


class MLP(nn.Sequential):
    """Fully connected layers: encoder, decoder and discriminators of the paper.

    Maps (B, *inputs) to (B, *outputs), or to features (B, width) where `outputs` is None.

    Args:
        inputs: shape of one input.
        outputs: shape of one output, reached by a linear layer; None for features alone.
        width: hidden units in each layer.
        depth: hidden layers; the paper has 2.
        activation: after each hidden layer.
        batch_norm: normalize each hidden layer over the minibatch. Never in a discriminator: it sees
            prior samples and codes in one batch and would tell them apart by their statistics.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape | None,
        /,
        *,
        width: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(1)],
        activation: Activation,
        batch_norm: bool,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        size = math.prod(inputs)
        for _ in range(depth):
            layers.append(nn.Linear(size, width, bias=not batch_norm))
            layers.extend([batch_norm_layer(width)] * batch_norm)
            layers.append(_ACTIVATIONS[activation]())
            size = width
        if outputs is not None:
            layers += [nn.Linear(size, math.prod(outputs)), nn.Unflatten(1, outputs)]
        super().__init__(*layers)
        self.features = size


class ConvEncoder(nn.Sequential):
    """Strided convolutions: (B, C, H, W) -> features; each layer halves the picture and doubles the channels.

    Args:
        inputs: (C, H, W); H and W divisible by 2 to the power of `depth`.
        outputs: must be None: an encoder gives features.
        channels: of the first layer.
        depth: number of layers.
        activation: after each layer.
        batch_norm: normalize each layer over the minibatch.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: None,
        /,
        *,
        channels: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(1)],
        activation: Activation,
        batch_norm: bool,
    ) -> None:
        start, high, wide = _halved(inputs, depth)
        layers: list[nn.Module] = []
        for k in range(depth):
            layers.append(nn.Conv2d(start, channels * 2**k, 4, stride=2, padding=1, bias=not batch_norm))
            layers.extend([batch_norm_layer(channels * 2**k, pictures=True)] * batch_norm)
            layers.append(_ACTIVATIONS[activation]())
            start = channels * 2**k
        super().__init__(*layers, nn.Flatten())
        self.features = start * high * wide


class ConvDecoder(nn.Sequential):
    """The mirror image of `ConvEncoder`: (B, size) -> (B, C, H, W).

    Args:
        inputs: (size,) of what is decoded.
        outputs: (C, H, W); H and W divisible by 2 to the power of `depth`.
        channels: of the last hidden layer.
        depth: number of transposed convolutions.
        activation: after each layer but the last.
        batch_norm: normalize each layer but the last over the minibatch.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        /,
        *,
        channels: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(1)],
        activation: Activation,
        batch_norm: bool,
    ) -> None:
        end, high, wide = _halved(outputs, depth)
        start = channels * 2 ** (depth - 1)
        layers: list[nn.Module] = [
            nn.Linear(math.prod(inputs), start * high * wide),
            nn.Unflatten(1, (start, high, wide)),
        ]
        for k in reversed(range(depth)):
            layers.extend([batch_norm_layer(start, pictures=True)] * batch_norm)
            layers.append(_ACTIVATIONS[activation]())
            into = channels * 2 ** (k - 1) if k else end
            layers.append(
                nn.ConvTranspose2d(start, into, 4, stride=2, padding=1, bias=not batch_norm or not k)
            )
            start = into
        super().__init__(*layers)


def _halved(shape: Shape, times: int) -> tuple[int, int, int]:
    channels, high, wide = shape
    if high % 2**times or wide % 2**times:
        raise ConfigError(
            f"{high}x{wide} pixels cannot be halved {times} times. Lower depth, or choose network=mlp."
        )
    return channels, high // 2**times, wide // 2**times


def batch_norm_layer(size: int, *, pictures: bool = False, affine: bool = True) -> nn.Module:
    """Batch norm whose running statistics the model measures; see `Model.calibrate`.

    Args:
        size: number of features, or of channels.
        pictures: normalize (B, size, H, W) instead of (B, size).
        affine: learn a gain and a bias for each.
    """
    return (nn.BatchNorm2d if pictures else nn.BatchNorm1d)(size, affine=affine)


def initialize(module: nn.Module, std: float) -> None:
    """Draws the weights of linear and convolutional layers from N(0, std²); biases become 0 (Appendix A)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
