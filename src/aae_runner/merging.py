"""A phase without a loss: y begins with more clusters than are wanted; those that are confused become one."""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from aae_runner.data import Images
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import Categorical
from aae_runner.model import Model, categorical
from aae_runner.phases import MakeDiscriminator
from aae_runner.precision import exact_products
from aae_runner.priors import Categorical as CategoricalPrior
from aae_runner.priors import Prior

log = logging.getLogger("aae_runner")

LOOKED_AT = 50_000
"""Images by which is chosen what merges; of fewer, a small cluster has too few that are in doubt."""
NOTHING = 1e-200
"""A probability instead of 0, so that one may be divided by another."""


class Merging(Phase):
    """Once, clusters of q(y|x) that are confused become one, in p(y) too, until few enough are left.

    Of many clusters hardly one holds images of two classes, of few many do, and seldom mend. So one begins
    with many, of which a class has several; and those of one class are confused with one another sooner
    than with others. Nothing but y changes: the phases that train are the paper's.

    Args:
        model: the autoencoder.
        priors: by the name of their head; that of this head must be categorical.
        make_discriminator: unused.
        head: the categorical head that is q(y|x); its size is how many clusters there are at first.
        keep: clusters in the end.
    """

    once = True

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
        self.head, self.keep = categorical(model, head, keep), keep
        prior = priors.get(head)
        if not isinstance(prior, CategoricalPrior):
            raise ConfigError(f"the head {head} must have a prior, aae_runner.priors.Categorical.")
        self._label.may_merge()
        prior.follow(lambda: self._label.members)

    def objectives(self) -> dict[str, Objective]:
        """None: it has no loss."""
        return {}

    @torch.no_grad()
    def prepare(self, first: Callable[[int], Images]) -> None:
        """Merges the clusters that are too many."""
        clusters, images = self.model.classes(self.head), first(LOOKED_AT)
        seen = ((self.model.encoder(x), y) for x, y in images.batches(1000))
        likely = (self._label(*one).parameters.double().softmax(1)[:, clusters] for one in seen)
        with exact_products():  # what merges stays so
            both = sum((q.T @ q for q in likely), torch.zeros(())) / len(images)
        for one, other in merges(both.cpu(), self.keep):
            self._label.merge(clusters[one], clusters[other])
        log.info("%d clusters became %d.", len(clusters), len(self.model.classes(self.head)))

    @property
    def _label(self) -> Categorical:
        label = self.model.heads[self.head]
        assert isinstance(label, Categorical)
        return label


def merges(both: Tensor, keep: int) -> list[tuple[int, int]]:
    """Which clusters become one: at each turn those two that are hardest to tell apart by their images.

    Of two draws of y for an image, p(i, j) is how often they are i and j. Over p(i) of the smaller cluster it
    is the part of its images that could be of the other as well: by that large ones merge, in a chain, as any
    image could be of them. Over p(i) p(j) it is how much more often than by chance: by that small ones merge,
    the odd ones of two classes too. This is in between: p(i, j) / (p(i) p(j)^(1/3)), i the smaller.
    One that no image could be of, p(i) = 0, merges first.

    Args:
        both: (K, K), p(i, j) in float64, since small probabilities are compared: the mean of q(i|x) q(j|x).
        keep: clusters in the end.

    Returns:
        K - keep pairs of numbers in turn, the smaller first: that of the cluster made of the two.
    """
    both, left = both.clone(), torch.ones(len(both), dtype=torch.bool)
    pairs = []
    while left.sum() > keep:
        p = both.sum(1).clamp_min(NOTHING)
        smaller, larger = torch.minimum(p, p[:, None]), torch.maximum(p, p[:, None])
        confused = both.clamp_min(NOTHING) / (smaller * larger ** (1 / 3))
        each_with_a_later_one = (left & left[:, None]).triu(1)
        one, other = divmod(int(confused.where(each_with_a_later_one, -torch.inf).argmax()), len(both))
        both[one] += both[other]
        both[:, one] += both[:, other]
        both[other] = both[:, other] = 0
        left[other] = False
        pairs.append((one, other))
    return pairs
