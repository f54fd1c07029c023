"""All that a config describes beside its data: model, priors, phases, evaluators."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from aae_runner.build import Builder
from aae_runner.config import Config, Facts, part
from aae_runner.data import derive_seed
from aae_runner.engine import Phase
from aae_runner.errors import ConfigError
from aae_runner.evaluators import Evaluator
from aae_runner.latents import TrueLabel
from aae_runner.model import Model, assemble
from aae_runner.networks import Shape, initialize
from aae_runner.phases import Classification, Regularization
from aae_runner.priors import Prior


class Parts(NamedTuple):
    """What a config describes beside its data; phases and evaluators by name, in their order."""

    model: Model
    priors: dict[str, Prior]
    corrupt: nn.Module
    phases: dict[str, Phase]
    evaluators: dict[str, Evaluator]


def build_parts(config: Config, build: Builder) -> Parts:
    """Builds all that needs no data, with weights that are a function of the seed.

    Raises:
        ConfigError: a part cannot be built as asked.
    """
    torch.manual_seed(derive_seed("weights", config.seed))
    facts = part(Facts, config.data, "data")[0]
    shape: Shape = tuple(facts.shape)
    if shape[0] not in (1, 3):
        raise ConfigError(f"data.shape={facts.shape}: pictures have 1 channel or 3, which come first.")
    for key in (*(f"heads.{name}" for name in config.heads), *(f"phases.{name}" for name in config.phases)):
        if hasattr(nn.ModuleDict(), key.partition(".")[2]) or key.count(".") > 1:
            raise ConfigError(f"{key}: torch has no room for this name. Choose another.")
    model, priors = assemble(config, build, shape)

    def make_discriminator(dimension: int) -> nn.Module:
        network: nn.Module = build(config.network.discriminator, "network.discriminator", (dimension,), (1,))
        return network

    phases = {
        name: build(
            {key: value for key, value in node.items() if key != "optimizer"},
            f"phases.{name}", model, priors, make_discriminator,
        )
        for name, node in config.phases.items()
    }  # fmt: skip
    _compare_classes(facts.classes, model, phases)
    if config.network.init_std is not None:
        initialize(nn.ModuleList([model, *phases.values()]), config.network.init_std)
    return Parts(
        model,
        priors,
        build(config.network.corruption, "network.corruption"),
        phases,
        {name: build(node, f"evaluators.{name}", model, priors) for name, node in config.evaluators.items()},
    )


def _compare_classes(classes: int, model: Model, phases: Mapping[str, Phase]) -> None:
    """Parts that are told labels must know how many classes these have: the next number means "hidden"."""
    for name, head in model.heads.items():
        if isinstance(head, TrueLabel) and head.size != classes:
            raise ConfigError(f"heads.{name}.size={head.size}: labels have data.classes={classes} classes.")
    for name, phase in phases.items():
        if isinstance(phase, Regularization) and phase.condition not in (None, classes):
            raise ConfigError(
                f"phases.{name}.condition={phase.condition}: labels have data.classes={classes} classes."
            )
        if isinstance(phase, Classification):
            if phase.classes != classes:
                raise ConfigError(
                    f"phases.{name}.classes={phase.classes}: labels have data.classes={classes} classes."
                )
            if getattr(model.heads[phase.head], "members", None) is not None:
                raise ConfigError(f"phases.{name}: what it teaches would merge. Set phases.{name}=null.")
