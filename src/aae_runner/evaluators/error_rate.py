"""How many images are classified wrongly."""

from torch import Tensor

from aae_runner.data import Images
from aae_runner.evaluators.snapshot import (
    CHUNK,
    Evaluator,
    Every,
    Findings,
    Priors,
    Snapshot,
    contingency,
    nearest,
)
from aae_runner.model import Model, categorical


class ErrorRate(Evaluator):
    """Share of images whose most probable class under q(y|x) is not theirs (Table 2).

    At the end also the 1-nearest-neighbor error on the same labels, what the pixels alone give, and which
    classes are taken for which.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head that is q(y|x).
    """

    def __init__(self, model: Model, priors: Priors, /, *, every: Every, head: str = "label") -> None:
        super().__init__(every)
        self.head = categorical(model, head, classes=2)

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`error_rate`, and on the test split `nearest_neighbor_error_rate` and the figure `confusion`."""
        logits, y, names = snapshot.parameters[self.head], snapshot.images.y, snapshot.data.names
        findings: Findings = {"error_rate": error_rate(logits, y)}
        if snapshot.split == "test":
            from aae_runner import figures

            findings["nearest_neighbor_error_rate"] = nearest_neighbor_error(
                snapshot.images, snapshot.data.labelled
            )
            counts = contingency(y, logits.argmax(1), len(names), logits.shape[1])
            findings["confusion"] = figures.confusion(counts, names, "Classes of the test images, per cent")
        return findings


def error_rate(logits: Tensor, y: Tensor) -> float:
    """Share of rows (N, classes) whose largest entry is not at y (N,)."""
    return float((logits.argmax(1) != y).double().mean())


def nearest_neighbor_error(images: Images, labelled: Images) -> float:
    """Error of giving each image the label of the nearest labelled image, by Euclidean distance of pixels."""
    wrong = sum(int((labelled.y[nearest(x, labelled)] != y).sum()) for x, y in images.batches(CHUNK))
    return wrong / len(images)
