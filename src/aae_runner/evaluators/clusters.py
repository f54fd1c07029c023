"""Clusters as classes: which label a cluster takes, how good that is, and what the clusters look like."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aae_runner.data import normalize
from aae_runner.errors import ConfigError
from aae_runner.evaluators.snapshot import (
    Evaluator,
    Every,
    Findings,
    Priors,
    Snapshot,
    contingency,
    one_of,
)
from aae_runner.model import Model, categorical

Labels = NDArray[np.int64]


def by_confidence(logits: Tensor, y: Tensor) -> Labels:
    """The paper's rule (Section 6): a cluster takes the label of the image most surely in it.

    Args:
        logits: (N, K) of q(y|x), of validation images. Compared as log odds, which order as q does but do
            not tie: many a softmax is exactly 1, and the first of them would win.
        y: (N,), their labels.

    Returns:
        (K,) labels.
    """
    exact = logits.double()
    total = exact.logsumexp(1, keepdim=True)
    others = total + torch.log(-torch.expm1(exact - total))  # log of 1 - q, exact where q is not the largest
    largest = exact.argmax(1, keepdim=True)
    others.scatter_(1, largest, exact.scatter(1, largest, -torch.inf).logsumexp(1, keepdim=True))
    surest = (exact - others).argmax(0)
    return np.asarray(y[surest].cpu())


def by_majority(counts: NDArray[np.int64]) -> Labels:
    """A cluster takes its most frequent label; an empty one the most frequent label of all.

    Args:
        counts: (K, classes), images of each cluster and class.
    """
    overall = counts.sum(0).argmax()
    labels: Labels = np.where(counts.sum(1) > 0, counts.argmax(1), overall)
    return labels


def by_assignment(counts: NDArray[np.int64]) -> Labels:
    """The best one-to-one assignment of clusters to labels (Hungarian); -1 for a cluster left over.

    Args:
        counts: (K, classes), images of each cluster and class.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and few runs have clusters

    labels = np.full(len(counts), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    labels[rows] = columns
    return labels


class ClusterError(Evaluator):
    """Share of images whose cluster's label is not theirs (Table 3).

    The labels of clusters come from the validation split, by three rules; beside them stand normalized
    mutual information and the adjusted Rand index.

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
        """`cluster_error_rate` (the paper's rule), the same by majority and by assignment, NMI, ARI.

        And `clusters`, the number of those that hold an image.
        """
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        known = snapshot.on("valid")
        known_logits, logits = known.parameters[self.head], snapshot.parameters[self.head]
        clusters, y = logits.argmax(1), snapshot.images.y
        counts = contingency(
            known_logits.argmax(1), known.images.y, logits.shape[1], snapshot.data.facts.classes
        )
        place, truth = np.asarray(clusters.cpu()), np.asarray(y.cpu())
        rules = {
            "cluster_error_rate": by_confidence(known_logits, known.images.y),
            "cluster_majority_error_rate": by_majority(counts),
            "cluster_assignment_error_rate": by_assignment(counts),
        }
        return {
            **{name: float((labels[place] != truth).mean()) for name, labels in rules.items()},
            "normalized_mutual_information": float(normalized_mutual_info_score(truth, place)),
            "adjusted_rand_index": float(adjusted_rand_score(truth, place)),
            "clusters": len(np.unique(place)),
        }


class ClusterGallery(Evaluator):
    """Each cluster's head, decoded from z = 0, beside images of the cluster (Fig. 9).

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        columns: images of each cluster, the first of the split; white where there are fewer.
        style: the head that is z.
        label: the head that is y.
    """

    def __init__(
        self,
        model: Model,
        priors: Priors,
        /,
        *,
        every: Every,
        columns: Annotated[int, Ge(1)] = 10,
        style: str = "style",
        label: str = "label",
    ) -> None:
        super().__init__(every)
        self.columns = columns
        self.style, self.label = one_of(model.heads, style, "head"), categorical(model, label, 2)
        if style == label:
            raise ConfigError(f"style={style} and label={label} are one head. Name z and y.")

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `cluster_gallery`: a row is a cluster, its first picture the head."""
        from aae_runner import figures

        z, clusters = snapshot.values[self.style], snapshot.parameters[self.label].argmax(1)
        shown = snapshot.model.classes(self.label)
        y = F.one_hot(torch.tensor(shown, device=z.device), snapshot.values[self.label].shape[1]).to(z.dtype)
        heads = snapshot.model.decode({self.style: z.new_zeros(len(y), z.shape[1]), self.label: y})
        table = heads.new_ones(len(y), 1 + self.columns, *heads.shape[1:])
        table[:, 0] = heads
        for row, cluster in enumerate(shown):
            members = snapshot.images.x[clusters == cluster][: self.columns]
            table[row, 1 : 1 + len(members)] = normalize(members)
        title = f"Heads of the clusters (z = 0), and {snapshot.split} images of each"
        return {"cluster_gallery": figures.pictures(table, title, ["head"], [str(k) for k in shown])}
