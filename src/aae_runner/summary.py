"""Many finished runs as rows: each final metric of an experiment over its seeds. torch is not needed."""

import json
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from aae_runner.config import CONSTANT_KEYS, Reference, check
from aae_runner.differences import differences
from aae_runner.errors import AAEError, ConfigError

UNTOLD = {*CONSTANT_KEYS, "prior"}
"""Keys in which runs of two identities may be alike; `priors` has the prior where it is used."""


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it; the folder may be a stranger's, so all is checked or plain."""

    folder: Path
    experiment: str | None
    """NAME, where it was started with experiment=NAME."""
    epochs: int
    metrics: dict[str, float]
    """The final ones by tag; rates are fractions."""
    reference: Reference | None
    """The paper's number."""
    config: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    note: str
    """What is to be known of its data."""

    @property
    def name(self) -> str:
        """Such as seed0."""
        return str(plain(self.folder.name))


@dataclass(frozen=True)
class Series:
    """Runs of one config and length, which differ in their seed."""

    folder: str
    """Their common one, relative to where the report looks; data set, variant and identity in any case."""
    settings: str
    """What the other series of the experiment, data set and variant have otherwise: KEY=VALUE KEY=VALUE."""
    runs: list[Run]
    """At least one, in the order of their seeds."""

    @property
    def name(self) -> str:
        """The experiment and the last part of the folder, or all of the folder."""
        experiment = self.runs[0].experiment
        return f"{experiment} {Path(self.folder).name}" if experiment else self.folder


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
    """The paper's number, or the mean of that of a fresh prior sample."""
    reference_deviation: float | None
    source: str | None
    """Where the reference is from."""
    difference: float | None
    """Mean less the paper's number."""
    seconds: float
    """Of a run, on average."""
    note: str


def read_series(roots: Sequence[Path]) -> tuple[list[Series], list[str]]:
    """Finds the finished runs under folders, but for those moved aside by resume=false.

    Args:
        roots: folders; one may lie in another, or be a run itself.

    Returns:
        The runs by experiment and length, and a sentence for each results.json that cannot be read.

    Raises:
        ConfigError: a folder does not exist, or there is no finished run in any.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root}: there is no such folder. Name the one given as runs=FOLDER.")
    folders = {path.parent.resolve() for root in roots for path in root.rglob("results.json")}
    groups: dict[tuple[Path, int], list[Run]] = defaultdict(list)
    damaged = []
    for folder in sorted(folders, key=lambda one: (one.parent, len(one.name), one.name)):  # seed2, seed10
        if "~" in folder.name:
            continue
        try:
            run = _read(folder)
        except (
            AAEError,
            ArithmeticError,
            LookupError,
            OSError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            reason = " ".join(str(error).split())
            damaged.append(plain(f"{folder / 'results.json'}: damaged ({reason}), so it is left out."))
        else:
            groups[folder.parent, run.epochs].append(run)
    if not groups:
        where = ", ".join(map(str, roots))
        said = f"{where}: holds no finished run. Name the folder given as runs=FOLDER."
        raise ConfigError("\n".join([*damaged, said]))
    base = os.path.commonpath([root.resolve() for root in roots])
    settings = _settings(groups)
    return [
        Series(plain(_called(folder, base)), settings[folder, epochs], runs)
        for (folder, epochs), runs in groups.items()
    ], damaged


def rows(series: Iterable[Series]) -> list[Row]:
    """A row for each final metric of each series; the one that the paper has a number for comes first."""
    found = []
    for one in series:
        first = one.runs[0]
        paper = first.reference.metric if first.reference else None
        tags = [tag for tag in first.metrics if not tag.endswith("_reference")]
        found += [_row(one, tag) for tag in sorted(tags, key=lambda tag: tag != paper)]
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


def _called(folder: Path, base: str) -> str:
    shown = folder.relative_to(base).parts if folder.is_relative_to(base) else ()
    return str(Path(*(shown if len(shown) > 3 else folder.parts[-3:])))


def _settings(groups: Mapping[tuple[Path, int], list[Run]]) -> dict[tuple[Path, int], str]:
    """What differs among groups of one experiment, data set and variant, as one writes it.

    Evaluators count only where nothing else tells two identities apart.
    """
    alike: dict[Any, list[tuple[Path, int]]] = defaultdict(list)
    for group, (first, *_) in groups.items():
        alike[first.experiment, group[0].parts[-3:-1]].append(group)
    told: dict[tuple[Path, int], str] = {}
    for some in alike.values():
        for left_out in ({*UNTOLD, "evaluators"}, UNTOLD):
            found = differences([groups[group][0].config for group in some], left_out)
            texts = [
                " ".join(f"{key}={values[place]}" for key, values in found.items())
                for place in range(len(some))
            ]
            if len(set(texts)) == len({folder.name for folder, _ in some}):
                break
        told |= dict(zip(some, texts, strict=True))
    return told


def _row(series: Series, tag: str) -> Row:
    first = series.runs[0]
    values = [run.metrics[tag] for run in series.runs if tag in run.metrics]
    fresh = [run.metrics[beside] for run in series.runs if (beside := f"{tag}_reference") in run.metrics]
    mean = statistics.fmean(values)
    many = len(values) > 1
    low, high = interval(values) if many else (None, None)
    if is_share(tag) and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)
    paper = first.reference if first.reference and first.reference.metric == tag else None
    return Row(
        first.experiment, series.folder, series.settings, first.epochs, tag, len(values), mean,
        deviation=statistics.stdev(values) if many else None,
        low=low,
        high=high,
        reference=paper.value if paper else statistics.fmean(fresh) if fresh else None,
        reference_deviation=paper.deviation if paper else None,
        source=paper.source if paper else "a fresh prior sample" if fresh else None,
        difference=mean - paper.value if paper else None,
        seconds=statistics.fmean(run.seconds for run in series.runs),
        note=first.note,
    )  # fmt: skip


def _read(folder: Path) -> Run:
    results = plain(json.loads((folder / "results.json").read_text(encoding="utf-8")))
    config, environment, paper = results["config"], results["environment"], results["config"]["reference"]
    metrics = {tag: float(value) for tag, value in results.items() if tag.startswith("test/")}
    seconds = float(environment["seconds"])
    for name, value in (*metrics.items(), ("seconds", seconds)):
        if not abs(value) < 1e100:  # also what is not a number
            raise ValueError(f"{name} is {value}")
    return Run(
        folder,
        _experiment(folder / ".hydra" / "overrides.yaml"),
        int(results["epochs"]),
        metrics,
        None if paper is None else check(Reference, paper, "reference"),
        config,
        environment,
        seconds,
        str(results["data"]["note"]),
    )


def _experiment(overrides: Path) -> str | None:
    """A file of one override a line; no YAML is loaded from a folder that may be a stranger's."""
    try:
        text = overrides.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r"^- ['\"]?\+?experiment=([\w.-]+)", text, re.MULTILINE)
    return found[1] if found else None


def plain(node: Any) -> Any:
    """The same with no character in its texts that a terminal would act on."""
    match node:
        case str():
            return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in node)
        case dict():
            return {plain(key): plain(value) for key, value in node.items()}
        case list():
            return [plain(one) for one in node]
    return node
