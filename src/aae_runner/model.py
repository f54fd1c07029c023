"""The autoencoder: encoder trunk, heads, join, decoder."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aae_runner.build import Builder
from aae_runner.config import Config, check
from aae_runner.errors import ConfigError
from aae_runner.latents import Categorical, Code, Codes
from aae_runner.networks import Shape
from aae_runner.priors import Prior


class Model(nn.Module):
    """An autoencoder whose code has named parts.

    Args:
        encoder: the trunk, (B, C, H, W) -> features.
        heads: by name, features -> `Code`.
        join: {name: value} -> (B, join.size), what the decoder sees; None where nothing is decoded.
        decoder: (B, join.size) -> (B, C, H, W); None likewise.
        output: `sigmoid` for pixels in (0, 1), `linear` for any.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: Mapping[str, nn.Module],
        join: nn.Module | None,
        decoder: nn.Module | None,
        output: Literal["sigmoid", "linear"],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        self.join = join
        self.decoder = decoder
        self.output = nn.Sigmoid() if output == "sigmoid" else nn.Identity()
        for layer in self._measured():
            layer.track_running_stats = False

    def encode(self, x: Tensor, y: Tensor) -> Codes:
        """Images (B, C, H, W) and labels (B,) -> the codes of every head; one pass through the trunk."""
        features = self.encoder(x)
        return {name: head(features, y) for name, head in self.heads.items()}

    def infer(self, copies: Tensor, y: Tensor) -> Codes:
        """Corrupted copies (draws, B, C, H, W) of images and their labels (B,) -> the codes of the images.

        The corruption is noise that the encoder is given, as in the universal approximator posterior
        (Section 2.1), so q(y|x) is an integral over it, and the mean of a categorical head's y over the
        copies its Monte Carlo estimate. That is one-hot only where all copies fall into one class, so
        classes come to end where images are rare. Any other code is a draw: that of the first copy.
        """
        if len(copies) == 1:
            return self.encode(copies[0], y)
        codes = self.encode(copies.flatten(0, 1), y.repeat(len(copies)))
        return {name: self._of_image(name, code, len(copies)) for name, code in codes.items()}

    def _of_image(self, name: str, code: Code, draws: int) -> Code:
        value, parameters = (part.unflatten(0, (draws, -1)) for part in code)
        if not isinstance(self.heads[name], Categorical):
            return Code(value[0], parameters[0])
        log_q = parameters.log_softmax(2).logsumexp(0) - math.log(draws)
        return Code(value.mean(0), log_q)  # which are logits of q(y|x), too

    def classes(self, head: str) -> list[int]:
        """The numbers of the classes or clusters of a head that is y; of merged ones, the first's."""
        y: Any = self.heads[head]
        if isinstance(y, Categorical) and y.members is not None:
            return [k for k, there in enumerate(y.members.any(0).tolist()) if there]
        return list(range(y.size))

    def decode(self, values: Mapping[str, Tensor]) -> Tensor:
        """{head: (B, size)} -> images (B, C, H, W)."""
        decoded: Tensor = self.output(self.logits(values))
        return decoded

    def logits(self, values: Mapping[str, Tensor]) -> Tensor:
        """{head: (B, size)} -> (B, C, H, W) before the output's sigmoid."""
        if self.join is None or self.decoder is None:
            raise ConfigError("this variant has no decoder (join=null).")
        decoded: Tensor = self.decoder(self.join(values))
        return decoded

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measures the statistics that batch norm uses in evaluation.

        A step encodes two minibatches, one of them twice; which of the passes should count? None: they are
        not tracked, so that every forward in training is a pure function.

        Args:
            batches: clean training images (B, C, H, W) and their labels; their statistics are averaged.
        """
        layers = self._measured()
        if not layers:
            return
        was_training = self.training
        self.train()
        for layer in layers:
            layer.track_running_stats = True
            layer.momentum = None  # torch's sign for a plain average over all batches
            layer.reset_running_stats()
        for x, y in batches:
            codes = self.encode(x, y)
            if self.decoder is not None:
                self.decode({name: code.value for name, code in codes.items()})
        for layer in layers:
            layer.track_running_stats = False
        self.train(was_training)

    def _measured(self) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
        batch_norms = [one for one in self.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
        return [one for one in batch_norms if one.running_mean is not None]  # a user's own may have none


def categorical(model: Model, head: str, classes: int) -> str:
    """The name of a head that is q(y|x), if it is one.

    Raises:
        ConfigError: there is no such head, or it is not categorical, or has fewer than `classes`.
    """
    if head not in model.heads:
        raise ConfigError(f"there is no head {head}. Heads: {', '.join(model.heads)}.")
    label = model.heads[head]
    if not isinstance(label, Categorical) or label.size < classes:
        raise ConfigError(f"the head {head} must be categorical, of size {classes} or more.")
    return head


def assemble(config: Config, build: Builder, shape: Shape) -> tuple[Model, dict[str, Prior]]:
    """The model and the priors of its heads.

    Args:
        config: the settled config.
        build: makes components.
        shape: (C, H, W) of the images.

    Raises:
        ConfigError: a prior without a head, or one whose dimension cannot be its head's.
    """
    priors: dict[str, Prior] = {}
    for name, node in config.priors.items():
        if name not in config.heads:
            raise ConfigError(
                f"priors.{name}: there is no head of this name. Heads: {', '.join(config.heads)}."
            )
        size = check(int | None, config.heads[name].get("size"), f"heads.{name}.size")
        priors[name] = build(node, f"priors.{name}", size)
        dimension = priors[name].dimension
        if size not in (None, dimension):
            raise ConfigError(
                f"heads.{name}.size={size}, but its prior {type(priors[name]).__name__} has {dimension} "
                f"dimensions. Set heads.{name}.size={dimension}, or choose another prior."
            )
    encoder = build(config.network.encoder, "network.encoder", shape, None)
    heads = {}
    for name, node in config.heads.items():
        if node.get("size") is None and name in priors:
            node = {**node, "size": priors[name].dimension}  # noqa: PLW2901
        heads[name] = build(node, f"heads.{name}", encoder.features)
    join = decoder = None
    if config.join is not None:
        join = build(config.join, "join", {name: head.size for name, head in heads.items()})
        decoder = build(config.network.decoder, "network.decoder", (join.size,), shape)
    return Model(encoder, heads, join, decoder, config.network.output), priors
