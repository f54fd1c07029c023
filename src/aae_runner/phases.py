"""The paper's phases. Each says which updates it consists of; the trainer knows only updates."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from aae_runner import losses
from aae_runner.data import Batch
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import Codes
from aae_runner.model import Model
from aae_runner.priors import Prior

Stream = Literal["all", "labelled"]
MakeDiscriminator = Callable[[int], nn.Module]
"""From the dimension of a code to a network (B, dimension) -> (B, 1), logits."""


class Reconstruction(Phase):
    """Encoder and decoder lower the reconstruction error (Section 2).

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        stream: which images are reconstructed.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        stream: Stream = "all",
    ) -> None:
        super().__init__(model, stream)
        self.model: Model

    def objectives(self) -> dict[str, Objective]:
        """One update, of the whole autoencoder."""
        return {"autoencoder": Objective(self._loss, [self.model])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        decoded = self.model.decode({name: code.value for name, code in codes.items()})
        return {"reconstruction": losses.reconstruction(batch.x, decoded)}


class Regularization(Phase):
    """Codes are pushed towards their priors by one discriminator each (Section 2; two of them in Section 5).

    First every discriminator learns to tell its prior's samples from codes, then the encoder learns, in
    one update, to fool all of them.

    Args:
        model: the autoencoder.
        priors: by the name of their head.
        make_discriminator: makes a discriminator for codes of a dimension.
        stream: which images are encoded.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        stream: Stream = "all",
    ) -> None:
        super().__init__(model, stream)
        self.model: Model
        if not priors:
            raise ConfigError("no head has a prior. Add one to priors.")
        self.priors = nn.ModuleDict(priors)
        self.discriminators = nn.ModuleDict(
            {name: make_discriminator(prior.dimension) for name, prior in priors.items()}
        )

    def objectives(self) -> dict[str, Objective]:
        """Two updates: of all discriminators, then of the encoder as their generator."""
        encoder = [self.model.encoder, *(self.model.heads[name] for name in self.discriminators)]
        return {
            "discriminator": Objective(self._discriminator_loss, [self.discriminators]),
            "generator": Objective(self._generator_loss, encoder),
        }

    def _discriminator_loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        terms = {}
        for name, discriminator in self.discriminators.items():
            fake = codes[name].value.detach()
            real = self._prior(name).sample(len(fake))
            logits = discriminator(torch.cat([real, fake])).squeeze(1)  # one pass for both: (2B,)
            terms[f"discriminator_{name}"] = losses.discriminator(*logits.chunk(2))
        return terms

    def _generator_loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        return {
            f"generator_{name}": losses.generator(discriminator(codes[name].value).squeeze(1))
            for name, discriminator in self.discriminators.items()
        }

    def _prior(self, name: str) -> Prior:
        prior = self.priors[name]
        assert isinstance(prior, Prior)
        return prior


class Classification(Phase):
    """q(y|x) lowers its cross-entropy on labelled images (Section 5).

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the categorical head that is q(y|x).
        stream: which images are classified.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
        stream: Stream = "labelled",
    ) -> None:
        super().__init__(model, stream)
        self.model: Model
        if head not in model.heads:
            raise ConfigError(f"there is no head {head}. Heads: {', '.join(model.heads)}.")
        self.head = head

    def objectives(self) -> dict[str, Objective]:
        """One update, of the encoder's trunk and the label head."""
        return {"classifier": Objective(self._loss, [self.model.encoder, self.model.heads[self.head]])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        return {"classification": losses.classification(codes[self.head].parameters, batch.y)}
