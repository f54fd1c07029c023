"""Final metrics over seeds, as rows, which every form of the report shows."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from scipy.special import stdtrit

from aae_runner.series import Series
from aae_runner.words import counted


@dataclass(frozen=True)
class Row:
    """A final metric of a series. Rates are fractions; None stands for what is not known."""

    experiment: str | None
    run: str
    """The folder of the series."""
    settings: str
    """See `Series`."""
    epochs: int
    metric: str
    seeds: int
    mean: float
    deviation: float | None
    """Standard deviation over seeds (n - 1); None of one seed."""
    low: float | None
    """The 95 % interval of the mean by Student's t, of a share clipped to [0, 1], from here ..."""
    high: float | None
    """... to here."""
    reference: float | None
    """The paper's number, or the mean of that of a fresh prior sample, or of another series."""
    reference_deviation: float | None
    source: str | None
    """Where the reference is from."""
    difference: float | None
    """Mean less the paper's number; or from another series, the mean over the seeds that both have."""
    difference_error: float | None
    """The standard error of that mean over seeds; None of one seed, and of a difference from the paper."""
    seconds: float
    """Of a run, on average."""
    note: str


def rows(series: Iterable[Series]) -> list[Row]:
    """A row for each final metric of each series; the one that the paper has a number for comes first."""
    found = []
    for one in series:
        paper = one.reference or (one.against or one).reference
        last = paper.metric.rpartition("/")[2] if paper else None  # of whichever split
        # of any seed: one that a later version computed has more of them
        tags = [tag for tag in dict.fromkeys(chain(*(run.metrics for run in one.runs)))
                if not tag.endswith("_reference")]  # fmt: skip
        found += [_row(one, tag) for tag in sorted(tags, key=lambda tag: tag.rpartition("/")[2] != last)]
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more normal values, by Student's t."""
    n = len(values)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def is_share(tag: str) -> bool:
    """Whether a metric lies in [0, 1] and is printed as per cent: rates and accuracies are."""
    return tag.endswith(("_rate", "_accuracy"))


def _row(series: Series, tag: str) -> Row:
    first = series.runs[0]
    values = [run.metrics[tag] for run in series.runs if tag in run.metrics]
    mean = statistics.fmean(values)
    many = len(values) > 1
    low, high = interval(values) if many else (None, None)
    if is_share(tag) and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)
    beside = _beside_another(series, series.against, tag) if series.against else _beside(series, tag, mean)
    reference, reference_deviation, source, difference, difference_error = beside
    return Row(
        first.experiment, series.folder, series.settings, first.epochs, tag, len(values), mean,
        deviation=statistics.stdev(values) if many else None,
        low=low,
        high=high,
        reference=reference,
        reference_deviation=reference_deviation,
        source=source,
        difference=difference,
        difference_error=difference_error,
        seconds=statistics.fmean(run.seconds for run in series.runs),
        note=first.note,
    )  # fmt: skip


_Beside = tuple[float | None, float | None, str | None, float | None, float | None]
"""Of a `Row`: reference, its deviation, its source, difference, its standard error."""


def _beside(series: Series, tag: str, mean: float) -> _Beside:
    paper = series.reference
    if paper is not None and paper.metric == tag:
        return paper.value, paper.deviation, paper.source, mean - paper.value, None
    fresh = [run.metrics[beside] for run in series.runs if (beside := f"{tag}_reference") in run.metrics]
    if fresh:
        return statistics.fmean(fresh), None, "a fresh prior sample", None, None
    return None, None, None, None, None


def _beside_another(series: Series, other: Series, tag: str) -> _Beside:
    """Seed by seed: what two runs of one seed share, such as their labelled subset, cancels out."""
    theirs = {run.seed: run.metrics[tag] for run in other.runs if tag in run.metrics}
    ours = {run.seed: run.metrics[tag] for run in series.runs if tag in run.metrics and run.seed in theirs}
    if not ours:
        return None, None, None, None, None
    differences = [value - theirs[seed] for seed, value in ours.items()]
    n = len(differences)
    error = statistics.stdev(differences) / math.sqrt(n) if n > 1 else None
    source = f"{other.name}, {counted(other.runs[0].epochs, 'epoch')}, {counted(n, 'common seed')}"
    return statistics.fmean(theirs[seed] for seed in ours), None, source, statistics.fmean(differences), error
