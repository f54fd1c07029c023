"""An evaluator of your own: how long codes are, beside samples of their prior."""

from matplotlib.figure import Figure

from aae_runner.evaluators import Evaluator, Findings, Snapshot
from aae_runner.evaluators.snapshot import Every, Priors, one_of
from aae_runner.model import Model


class CodeLengths(Evaluator):
    """Mean length of the codes, and a histogram of their lengths over that of the prior.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head whose codes are measured.
    """

    def __init__(self, model: Model, priors: Priors, /, *, every: Every, head: str = "style") -> None:
        super().__init__(every)
        self.head = one_of(priors, head, "prior of the head")

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`code_length`, `code_length_reference` (of the prior), and the figure `code_lengths`."""
        z = snapshot.values[self.head].norm(dim=1)
        prior = snapshot.priors[self.head].sample(len(z)).norm(dim=1)
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(prior.cpu().numpy(), bins=40, density=True, alpha=0.5, label="prior")
        axes.hist(z.cpu().numpy(), bins=40, density=True, histtype="step", label="codes")
        axes.set_xlabel("|z|")
        axes.legend()
        return {
            "code_length": float(z.mean()),
            "code_length_reference": float(prior.mean()),
            "code_lengths": figure,
        }
