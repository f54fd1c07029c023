"""A phase of your own: codes pay for their length."""

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from aae_runner.data import Batch
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import Codes
from aae_runner.model import Model
from aae_runner.phases import MakeDiscriminator
from aae_runner.priors import Prior


class CodeNorm(Phase):
    """The encoder lowers weight |z|²: a crude regularizer, to compare an adversary with.

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the head that is z.
        weight: of the penalty.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "style",
        weight: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(model, "all")  # the stream that it reads: all, or labelled
        if head not in model.heads:
            raise ConfigError(f"there is no head {head}. Heads: {', '.join(model.heads)}.")
        self.head, self.weight = head, weight

    def objectives(self) -> dict[str, Objective]:
        """One update, of the encoder and the head; by its name the schedule can give it an optimizer."""
        return {"encoder": Objective(self._loss, [self.model.encoder, self.model.heads[self.head]])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        return {"code_norm": self.weight * codes[self.head].value.square().sum(1).mean()}
