"""Phases that are not the paper's: q(y|x) changes little where the image does; no label is needed."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn import functional as F

from aae_runner import losses
from aae_runner.data import Batch
from aae_runner.engine import Objective, Phase
from aae_runner.latents import Codes
from aae_runner.model import Model, categorical
from aae_runner.phases import MakeDiscriminator
from aae_runner.priors import Prior


class Consistency(Phase):
    """q(y|x) lowers its divergence from itself at another image, which a subclass makes of each.

    The images are clean, and q(y|x) at them is a target: its gradient stops.

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the categorical head that is q(y|x).
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
    ) -> None:
        super().__init__(model, "all")
        self.head = categorical(model, head, classes=2)

    def objectives(self) -> dict[str, Objective]:
        """One update, of the encoder's trunk and the label head."""
        return {"classifier": Objective(self._loss, [self.model.encoder, self.model.heads[self.head]])}

    def codes(self, batch: Batch) -> Codes:
        """Of the clean images: what q(y|x) is to stay."""
        with torch.no_grad():
            return self.model.encode(batch.x, batch.y)

    @abstractmethod
    def changed(self, batch: Batch, logits: Tensor) -> Tensor:
        """The images at which q(y|x) is to stay what it is, (B, C, H, W).

        Args:
            batch: a minibatch.
            logits: (B, K), of q(y|x) at its images.
        """

    def divergence(self, batch: Batch, logits: Tensor, x: Tensor) -> Tensor:
        """Kullback-Leibler, from the q(y|x) of `logits` to that at `x`: a mean over images, in nats."""
        return losses.divergence(logits, self.model.encode(x, batch.y)[self.head].parameters)

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        logits = codes[self.head].parameters
        return {"divergence": self.divergence(batch, logits, self.changed(batch, logits))}


class Invariance(Consistency):
    """q(y|x) stays what it is where the image is turned, slanted, stretched and moved a little.

    Augmentation without labels. Each image has its own linear map, whose matrix is the identity plus four
    numbers that are uniform from `-distortion` to `distortion`, and its own shift; pixels are interpolated,
    the border's go on beyond it.

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the categorical head that is q(y|x).
        distortion: 0.2 turns by up to 14 degrees and stretches by up to a quarter along an axis.
        shift: of an image along each axis, at most, as a share of its size.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
        distortion: Annotated[float, Ge(0), Lt(0.5)],  # from there on, maps may mirror
        shift: Annotated[float, Ge(0), Lt(1)],
    ) -> None:
        super().__init__(model, priors, make_discriminator, head=head)
        self.distortion, self.shift = distortion, shift

    def changed(self, batch: Batch, logits: Tensor) -> Tensor:
        """Each image under its own affine map; `logits` are unused."""
        *_, height, width = batch.x.shape
        maps = 2 * torch.rand(len(batch.x), 2, 3, device=batch.x.device) - 1
        maps[:, :, :2] *= self.distortion
        maps[:, 0, 1] *= height / width  # both axes run from -1 to 1, however long they are
        maps[:, 1, 0] *= width / height
        maps[:, :, 2] *= 2 * self.shift
        maps += torch.eye(2, 3, device=maps.device)
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 knows places to a tenth of a pixel
            grid = F.affine_grid(maps, list(batch.x.shape), align_corners=False)
            return F.grid_sample(batch.x, grid, padding_mode="border", align_corners=False)


class VirtualAdversarial(Consistency):
    """q(y|x) stays what it is at the worst place near each image (Miyato et al., 1704.03976, Section 3.2).

    Where it lies is found anew for each image, by one step of power iteration from a random direction.

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
        super().__init__(model, priors, make_discriminator, head=head)
        self.distance, self.probe = distance, probe

    def changed(self, batch: Batch, logits: Tensor) -> Tensor:
        """Each image plus the step, of length `distance`, to where q(y|x) differs most."""
        step = _of_length(torch.randn_like(batch.x), self.probe).requires_grad_()
        (towards,) = torch.autograd.grad(self.divergence(batch, logits, batch.x + step), [step])
        return batch.x + _of_length(towards, self.distance)


def _of_length(x: Tensor, length: float) -> Tensor:
    return length * F.normalize(x.flatten(1), dim=1).view_as(x)
