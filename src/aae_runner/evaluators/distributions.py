"""How near distributions come: the generated images to the real ones, the codes to their prior."""

import logging
import time
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from rich import get_console
from rich.progress import Progress
from torch import Tensor

from aae_runner import parzen
from aae_runner.data import derive_seed
from aae_runner.evaluators.snapshot import CHUNK, Evaluator, Every, Findings, Priors, Snapshot, Source, one_of
from aae_runner.model import Model
from aae_runner.prior_match import prior_match
from aae_runner.priors import Prior

log = logging.getLogger("aae_runner")

VALIDATION = 1000
"""Validation images on which Parzen's sigma is chosen."""

MINUTE = 60
"""Seconds between two lines on how far Parzen's samples are, where no bar can be drawn."""


class LogLikelihood(Evaluator):
    """Parzen estimate of the log-likelihood of images in [0, 1] (Section 3, Table 1).

    The samples are the decoder's means at codes drawn from the priors of all heads, the same codes for
    every model. Ten million of them need no more memory than ten thousand.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`. On the validation split, whose images choose sigma too, it is a little high.
        samples: generated images; the estimate rises with their number, so name it with the result.
    """

    def __init__(
        self, model: Model, priors: Priors, /, *, every: Every, samples: Annotated[int, Ge(1)] = 10_000
    ) -> None:
        super().__init__(every)
        for name in model.heads:
            one_of(priors, name, "prior of the head")
        self.samples = samples

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`log_likelihood` and `log_likelihood_standard_error` in nats, and `parzen_sigma`."""
        valid, images = (
            torch.cat([x.flatten(1) for x, _ in split.batches(VALIDATION)])
            for split in (snapshot.data.valid[:VALIDATION], snapshot.images)
        )
        console = get_console()
        said = time.monotonic()
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("log-likelihood", total=2 * self.samples)  # which are drawn twice

            def draw() -> Iterator[Tensor]:
                nonlocal said
                for start in range(0, self.samples, parzen.CHUNK):
                    n = min(parzen.CHUNK, self.samples - start)
                    torch.manual_seed(derive_seed("parzen", start))  # so that drawing again draws the same
                    values = {name: snapshot.priors[name].sample(n) for name in snapshot.model.heads}
                    yield snapshot.model.decode(values).flatten(1)
                    progress.advance(task, n)
                    if progress.disable and time.monotonic() - said > MINUTE:
                        said = time.monotonic()
                        log.info("log-likelihood: %.0f %% done", progress.tasks[task].percentage)

            found = parzen.estimate(images, valid, draw)
        return {
            "log_likelihood": found.log_likelihood,
            "log_likelihood_standard_error": found.standard_error,
            "parzen_sigma": found.sigma,
        }


class PriorMatch(Evaluator):
    """How well the codes of a head match its prior; see `aae_runner.prior_match`.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head whose codes are compared.
        sampled: look at samples of a Gaussian q(z|x) instead of its means.
    """

    def __init__(
        self, model: Model, priors: Priors, /, *, every: Every, head: str = "style", sampled: bool = False
    ) -> None:
        super().__init__(every)
        self.source = Source(model, priors, head, sampled=sampled)

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`coverage`, `mass_error`, `outside`, `sliced_wasserstein`, `squared_mmd`, and each one's reference.

        That is `..._reference`, the value of a fresh sample of the prior. Coverage is the share of cells,
        equally likely under the prior, that hold a code, mass error the total variation over them (both up to
        three dimensions), `outside` the share of codes where the prior is less dense than at 99 % of its own
        samples. Where `sampled`, all are called `sampled_...`.
        """
        found = prior_match(self.source.codes(snapshot), self.source.prior)
        return {f"{self.source.prefix}{name}": value for name, value in found.items()}


class OwnPart(Evaluator):
    """Share of codes that lie nearest their own label's part of the prior (Section 2.3, Fig. 4).

    The nearest part is the one under which the code is most probable: a component of the mixture, a segment
    of the Swiss roll. A prior without parts, or without a density, has no share.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head whose codes are compared.
    """

    def __init__(self, model: Model, priors: Priors, /, *, every: Every, head: str = "style") -> None:
        super().__init__(every)
        self.source = Source(model, priors, head)

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`own_part_rate`, or nothing."""
        prior = self.source.prior
        if prior.parts is None or not prior.has_density:
            return {}
        rate = own_part_rate(self.source.codes(snapshot), snapshot.images.y, prior)
        return {"own_part_rate": rate}


def own_part_rate(z: Tensor, y: Tensor, prior: Prior) -> float:
    """Share of codes z (N, dimension) that are most probable under the part of their label y (N,)."""
    right = 0
    for codes, labels in zip(z.split(CHUNK), y.split(CHUNK), strict=True):
        under = [prior.log_density(codes, torch.full_like(labels, k)) for k in range(prior.parts or 0)]
        right += int((torch.stack(under, dim=1).argmax(1) == labels).sum())
    return right / len(y)
