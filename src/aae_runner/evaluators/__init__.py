"""What is measured and shown of a model. Evaluators return names and values, and know no logger."""

from aae_runner.evaluators.clusters import ClusterError, ClusterGallery
from aae_runner.evaluators.distributions import LogLikelihood, OwnPart, PriorMatch, own_part_rate
from aae_runner.evaluators.error_rate import ErrorRate, error_rate, nearest_neighbor_error
from aae_runner.evaluators.pictures import (
    LatentMap,
    Manifold,
    Reconstructions,
    Representation,
    Samples,
    StyleGrid,
)
from aae_runner.evaluators.probes import Probe
from aae_runner.evaluators.snapshot import Evaluator, Every, Findings, Priors, Projection, Snapshot, Source

__all__ = [
    "ClusterError", "ClusterGallery", "ErrorRate", "Evaluator", "Every", "Findings", "LatentMap",
    "LogLikelihood", "Manifold", "OwnPart", "PriorMatch", "Priors", "Probe", "Projection", "Reconstructions",
    "Representation", "Samples", "Snapshot", "Source", "StyleGrid", "error_rate", "nearest_neighbor_error",
    "own_part_rate",
]  # fmt: skip
