"""A phase without a loss: y begins with more clusters than are wanted, and loses them one by one."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from aae_runner.data import Images
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import GONE, Categorical
from aae_runner.model import Model
from aae_runner.phases import MakeDiscriminator, categorical
from aae_runner.priors import Categorical as CategoricalPrior
from aae_runner.priors import Prior

LOOKED_AT = 10_000
"""Images by which the cluster to go is chosen."""


class Shrinking(Phase):
    """Whenever it runs, q(y|x) and p(y) lose a cluster, until as many are left as are wanted.

    Of many clusters hardly one holds images of two classes, of few many do, and seldom mend. So one begins
    with many, and takes out the one that is least needed. Its images go where q(y|x) is largest next, and
    training goes on. Nothing but the support of p(y) changes: the phases that train are the paper's.

    Args:
        model: the autoencoder.
        priors: by the name of their head; that of this head must be categorical.
        make_discriminator: unused.
        head: the categorical head that is q(y|x); its size is how many clusters there are at first.
        keep: clusters in the end.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
        keep: Annotated[int, Ge(2)],
    ) -> None:
        super().__init__(model, "all")
        self.model: Model
        self.head, self.keep = categorical(model, head, keep), keep
        prior = priors.get(head)
        if not isinstance(prior, CategoricalPrior):
            raise ConfigError(f"the head {head} must have a prior, aae_runner.priors.Categorical.")
        self.turns = self._label.size - keep
        self._label.may_shrink()
        prior.follow(lambda: self._label.left)

    def objectives(self) -> dict[str, Objective]:
        """None: it has no loss."""
        return {}

    @torch.no_grad()
    def prepare(self, first: Callable[[int], Images]) -> None:
        """Takes out a cluster, if there are more than are wanted."""
        left = self._label.left
        assert left is not None
        if int(left.sum()) > self.keep:
            features = ((self.model.encoder(x), y) for x, y in first(LOOKED_AT).batches(1000))
            logits = torch.cat([self._label(*one).parameters for one in features])
            left[least_needed(logits, left)] = False

    @property
    def _label(self) -> Categorical:
        label = self.model.heads[self.head]
        assert isinstance(label, Categorical)
        return label


def least_needed(logits: Tensor, left: Tensor) -> Tensor:
    """The cluster without which the others are surest: the mean entropy of q(y|x) is least.

    Args:
        logits: (N, K) of q(y|x).
        left: (K,) bool, the clusters that may go; the logits of all others are `GONE`.

    Returns:
        Its number, a scalar.
    """
    each = torch.eye(len(left), dtype=torch.bool, device=left.device)
    without = [logits.masked_fill(one, GONE).log_softmax(1) for one in each]
    entropies = torch.stack([-(log_q.exp() * log_q).sum(1).mean() for log_q in without])
    return entropies.masked_fill(~left, torch.inf).argmin()
