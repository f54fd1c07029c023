"""Trunks: from a shape to features, from codes to a shape."""

import math
from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

Shape = tuple[int, ...]

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
        activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"],
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


def batch_norm_layer(size: int) -> nn.BatchNorm1d:
    """Batch norm whose running statistics no training step touches.

    A step runs the encoder three times, on other images each time; which of them should count? None:
    momentum 0 makes every forward a pure function, and `Model.calibrate` measures the statistics on
    clean training images before they are used.
    """
    return nn.BatchNorm1d(size, momentum=0.0)
