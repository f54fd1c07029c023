"""A phase without a loss: y begins with more clusters than are wanted; those that are confused become one."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from aae_runner.data import Images
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import Categorical
from aae_runner.model import Model
from aae_runner.phases import MakeDiscriminator, categorical
from aae_runner.priors import Categorical as CategoricalPrior
from aae_runner.priors import Prior

LOOKED_AT = 10_000
"""Images by which is chosen what merges."""
NOTHING = 1e-200
"""A probability instead of 0, so that one may be divided by another."""


class Merging(Phase):
    """Whenever it runs, the two clusters of q(y|x) that are confused most become one, in p(y) too.

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
        self._label.may_merge()
        prior.follow(lambda: self._label.members)

    def objectives(self) -> dict[str, Objective]:
        """None: it has no loss."""
        return {}

    @torch.no_grad()
    def prepare(self, first: Callable[[int], Images]) -> None:
        """Merges two clusters, if there are more than are wanted."""
        clusters = self.model.classes(self.head)
        if len(clusters) > self.keep:
            seen = ((self.model.encoder(x), y) for x, y in first(LOOKED_AT).batches(1000))
            q = torch.cat([self._label(*one).parameters.double().softmax(1) for one in seen])
            one, other = most_confused(q[:, clusters])
            self._label.merge(clusters[one], clusters[other])

    @property
    def _label(self) -> Categorical:
        label = self.model.heads[self.head]
        assert isinstance(label, Categorical)
        return label


def most_confused(q: Tensor) -> tuple[int, int]:
    """The two clusters that are hardest to tell apart by their images.

    Of two draws of y for an image, p(i, j) is how often they are i and j. Over p(i) of the smaller cluster it
    is the part of its images that could be of the other as well: by that large ones merge, in a chain, as any
    image could be of them. Over p(i) p(j) it is how much more often than by chance: by that small ones merge,
    the odd ones of two classes too. This is in between: p(i, j) / (p(i) p(j)^(1/3)), i the smaller.
    A cluster without images merges first.

    Args:
        q: (N, K), q(y|x) of images in float64: what is compared are small probabilities.

    Returns:
        Their numbers, the smaller first.
    """
    p = q.mean(0).clamp_min(NOTHING)
    smaller, larger = torch.minimum(p, p[:, None]), torch.maximum(p, p[:, None])
    both = (q.T @ q / len(q)).clamp_min(NOTHING)
    confused = both / (smaller * larger ** (1 / 3))
    each_with_a_later_one = torch.ones_like(confused, dtype=torch.bool).triu(1)
    return divmod(int(confused.where(each_with_a_later_one, -torch.inf).argmax()), len(p))
