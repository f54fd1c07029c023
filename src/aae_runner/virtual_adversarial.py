"""A phase that is not the paper's: virtual adversarial training of q(y|x) (Miyato et al., 1704.03976)."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from aae_runner import losses
from aae_runner.data import Batch
from aae_runner.engine import Objective, Phase
from aae_runner.latents import Codes
from aae_runner.model import Model
from aae_runner.phases import MakeDiscriminator, categorical
from aae_runner.priors import Prior


class VirtualAdversarial(Phase):
    """q(y|x) lowers its divergence from itself at the worst place near each image (Section 3.2 there).

    No label is needed. The images are clean: where the worst place lies is found anew for each, by one
    step of power iteration from a random direction.

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the categorical head that is q(y|x).
        distance: of that place from the image: Euclidean, over all pixels, in units of the pixel range.
        probe: length of the random step at which the divergence's gradient is taken, in the same units.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
        distance: Annotated[float, Gt(0)],
        probe: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(model, "all")
        self.model: Model
        self.head = categorical(model, head, classes=2)
        self.distance, self.probe = distance, probe

    def objectives(self) -> dict[str, Objective]:
        """One update, of the encoder's trunk and the label head."""
        return {"classifier": Objective(self._loss, [self.model.encoder, self.model.heads[self.head]])}

    def codes(self, batch: Batch) -> Codes:
        """Of the clean images: what q(y|x) is to stay."""
        with torch.no_grad():
            return self.model.encode(batch.x, batch.y)

    def worst(self, batch: Batch, logits: Tensor) -> Tensor:
        """The step, of length `distance`, from each image to where q(y|x) differs most: (B, C, H, W).

        Args:
            batch: a minibatch.
            logits: (B, K), of q(y|x) at its images.
        """
        step = _of_length(torch.randn_like(batch.x), self.probe).requires_grad_()
        (towards,) = torch.autograd.grad(self._divergence(batch, logits, step), [step])
        return _of_length(towards, self.distance)

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        logits = codes[self.head].parameters
        return {"divergence": self._divergence(batch, logits, self.worst(batch, logits))}

    def _divergence(self, batch: Batch, logits: Tensor, step: Tensor) -> Tensor:
        there = self.model.encode(batch.x + step, batch.y)[self.head].parameters
        return losses.divergence(logits, there)


def _of_length(x: Tensor, length: float) -> Tensor:
    return length * F.normalize(x.flatten(1), dim=1).view_as(x)
