"""How near distributions come: the generated images to the real ones, the codes to their prior."""

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from rich import get_console
from rich.progress import Progress
from torch import Tensor

from aae_runner import parzen
from aae_runner.data import derive_seed
from aae_runner.errors import ConfigError
from aae_runner.evaluators.snapshot import Evaluator, Every, Findings, Priors, Snapshot, one_of
from aae_runner.model import Model
from aae_runner.prior_match import prior_match
from aae_runner.priors import Categorical

VALIDATION = 1000
"""Validation images on which Parzen's sigma is chosen."""


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
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("log-likelihood", total=None)

            def draw() -> Iterator[Tensor]:
                for start in progress.track(range(0, self.samples, parzen.CHUNK), task_id=task):
                    n = min(parzen.CHUNK, self.samples - start)
                    torch.manual_seed(derive_seed("parzen", start))  # so that drawing again draws the same
                    values = {name: snapshot.priors[name].sample(n) for name in snapshot.model.heads}
                    yield snapshot.model.decode(values).flatten(1)

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
    """

    def __init__(self, model: Model, priors: Priors, /, *, every: Every, head: str = "style") -> None:
        super().__init__(every)
        self.head = one_of(priors, one_of(model.heads, head, "head"), "prior of the head")
        if isinstance(priors[head], Categorical):
            raise ConfigError(f"the prior of {head} is categorical, and a continuous one is needed.")

    def __call__(self, snapshot: Snapshot) -> Findings:
        """Each measure and its `..._reference`: see `prior_match`."""
        return {**prior_match(snapshot.values[self.head], snapshot.priors[self.head])}
