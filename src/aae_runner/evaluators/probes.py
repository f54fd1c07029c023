"""What simple classifiers read off the codes."""

from typing import Annotated

from annotated_types import Ge

from aae_runner.evaluators.snapshot import Evaluator, Every, Findings, Priors, Snapshot, encoded, one_of
from aae_runner.model import Model


class Probe(Evaluator):
    """Accuracy of a linear and of a k-nearest-neighbor classifier on codes, learned on the training split.

    High where z tells classes apart; chance where style and label are apart (Section 4). Nothing is found
    where all images have one label, as unlabelled arrays do.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head whose codes are read.
        images: training images, the first, that the classifiers learn on, with their true labels.
        neighbors: k of the k-nearest-neighbor classifier.
    """

    def __init__(
        self,
        model: Model,
        priors: Priors,
        /,
        *,
        every: Every,
        head: str = "style",
        images: Annotated[int, Ge(1)] = 10_000,
        neighbors: Annotated[int, Ge(1)] = 10,
    ) -> None:
        super().__init__(every)
        self.head = one_of(model.heads, head, "head")
        self.images, self.neighbors = images, neighbors

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`linear_probe_accuracy` and `knn_probe_accuracy`, in [0, 1], or nothing."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        known = snapshot.data.train[: self.images]
        if len(known.y.unique()) < 2:
            return {}
        z, y = encoded(snapshot.model, known)[self.head].value.cpu().numpy(), known.y.cpu().numpy()
        others, truth = snapshot.values[self.head].cpu().numpy(), snapshot.images.y.cpu().numpy()
        found: Findings = {}
        for name, classifier in {
            "linear_probe_accuracy": LogisticRegression(max_iter=1000),
            "knn_probe_accuracy": KNeighborsClassifier(min(self.neighbors, len(known))),
        }.items():
            probe = make_pipeline(StandardScaler(), classifier).fit(z, y)
            found[name] = float(probe.score(others, truth))
        return found
