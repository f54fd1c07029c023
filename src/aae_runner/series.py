"""Finished runs, found in folders, and put together by what they learned. torch is not needed."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aae_runner.config import CONSTANT_KEYS, LATER_KEYS, Reference, check, constant_keys, nearest
from aae_runner.differences import differences
from aae_runner.errors import AAEError, ConfigError
from aae_runner.words import counted

UNTOLD = {*CONSTANT_KEYS, "prior"}
"""Keys in which runs of two identities may be alike; `priors` has the prior where it is used."""

BEGUN = ".hydra", "run.log", "checkpoints"
"""What a run leaves in its folder before it is finished."""

Group = tuple[str, str, int, tuple[int, ...]]
"""What the runs of a series share: identity, fingerprint of the data, epochs, lengths before that."""


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it; the folder may be a stranger's, so all is checked or plain."""

    folder: Path
    identity: str
    """Of its config; see `config.identity`."""
    data: str
    """Fingerprint of its data."""
    seed: int
    experiment: str | None
    """NAME, where it was started with experiment=NAME."""
    epochs: int
    lengths: tuple[int, ...]
    """In epochs, that it was to have before it was continued, where its rates fell by them."""
    metrics: dict[str, float]
    """The final ones by tag; rates are fractions."""
    reference: Reference | None
    """The paper's number."""
    config: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    note: str
    """See `note`."""

    @property
    def name(self) -> str:
        """Such as seed0, whatever its folder is called now."""
        return f"seed{self.seed}"


@dataclass(frozen=True)
class Series:
    """Runs of one config, data and length, each of another seed; their results say so, not their folders."""

    folder: str
    """That of the first, relative to where the report looks: data set, variant and identity, or, where a run
    was moved elsewhere, the folder that holds it and the identity."""
    settings: str
    """What the other series of the experiment, data set and variant have otherwise: KEY=VALUE KEY=VALUE."""
    runs: list[Run]
    """At least one, in the order of their seeds."""
    against: "Series | None" = None
    """Another of the same data, from which it is to be told apart seed by seed."""

    @property
    def reference(self) -> Reference | None:
        """The paper's number, of the first that has one."""
        return next((run.reference for run in self.runs if run.reference), None)

    @property
    def name(self) -> str:
        """The experiment and the last part of the folder, or all of the folder."""
        experiment = self.runs[0].experiment
        return f"{experiment} {Path(self.folder).name}" if experiment else self.folder


def read_series(roots: Sequence[Path], split: str = "test") -> tuple[list[Series], list[str]]:
    """Finds the finished runs under folders, but for those moved aside by resume=false.

    Args:
        roots: folders; one may lie in another, or be a run itself.
        split: of which the metrics are: `test` or `valid`.

    Returns:
        The runs by what they learned and how long, and a sentence for each that is left out: its results.json
        cannot be read, or it has the seed of another one, as a copy has.

    Raises:
        ConfigError: a folder does not exist, or there is no finished run in any.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root}: there is no such folder. Name the one given as runs=FOLDER.")
    folders = {path.parent.resolve() for root in roots for path in root.rglob("results.json")}
    groups: dict[Group, dict[int, Run]] = defaultdict(dict)
    left_out = []
    for folder in sorted(folders, key=_order):
        if "~" in folder.name:
            continue
        try:
            run = _read(folder, split)
            if split == "valid" and not run.metrics:
                left_out.append(
                    plain(f"{folder}: it never looked at the validation split, so it is left out.")
                )
                continue
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
            left_out.append(plain(f"{folder / 'results.json'}: damaged ({reason}), so it is left out."))
            continue
        first = groups[run.identity, run.data, run.epochs, run.lengths].setdefault(run.seed, run)
        if first is not run:
            left_out.append(
                plain(f"{folder}: the same configuration and seed as {first.folder}, so it is left out.")
            )
    if not groups:
        where = ", ".join(map(str, roots))
        said = f"{where}: holds no finished run. Name the folder given as runs=FOLDER."
        raise ConfigError("\n".join([*left_out, said]))
    base = Path(os.path.commonpath([root.resolve() for root in roots]))
    sorted_runs = [[runs[seed] for seed in sorted(runs)] for runs in groups.values()]
    names = [plain(_called(runs[0], base)) for runs in sorted_runs]
    return [
        Series(*one) for one in zip(names, _settings(names, sorted_runs), sorted_runs, strict=True)
    ], left_out


def beside_the_paper(series: Iterable[Series]) -> list[Series]:
    """Of those that the paper has a number for that number alone, sorted by where it stands in the paper.

    Raises:
        ConfigError: there is none.
    """
    found = []
    for one in series:
        paper = one.reference
        if paper is None:
            continue
        alone = [
            replace(run, metrics={paper.metric: run.metrics[paper.metric]})
            for run in one.runs
            if paper.metric in run.metrics
        ]
        if alone:
            found.append((paper.source, one.name, replace(one, runs=alone)))
    if not found:
        raise ConfigError(
            "of none of these runs the paper has a number. Run an experiment=quick_table... first."
        )
    return [one for *_, one in sorted(found, key=lambda row: row[:2])]


def against(series: Sequence[Series], identity: str) -> list[Series]:
    """The series of an identity, and all that can be told apart from it: of its data, with a seed in common.

    Args:
        series: all there are.
        identity: the last part of its folder. Of several lengths, each other series takes that of its own, or
            else the longest.

    Raises:
        ConfigError: there is none of this identity, or none to be told apart from it.
    """
    bases = [one for one in series if one.runs[0].identity == identity]
    if not bases:
        names = nearest(identity, sorted({one.runs[0].identity for one in series}))
        raise ConfigError(f"--against {identity}: there is no such identity.{names}")
    found = []
    for one in series:
        comparable = [base for base in bases if one not in bases and _pairs(one, base)]
        if comparable:
            epochs = one.runs[0].epochs
            base = max(comparable, key=lambda it: (it.runs[0].epochs == epochs, it.runs[0].epochs))
            found.append(replace(one, against=base))
    if not found:
        raise ConfigError(f"--against {identity}: no other run here has its data, a metric and a seed of it.")
    return [*bases, *found]


def _pairs(one: Series, other: Series) -> bool:
    """Whether there are two runs of the same data and seed that have a metric in common."""
    theirs = {run.seed: run for run in other.runs if run.data == one.runs[0].data}
    return any(
        run.seed in theirs and run.metrics.keys() & theirs[run.seed].metrics.keys() for run in one.runs
    )


def unfinished(roots: Sequence[Path]) -> list[Path]:
    """The folders of runs that have begun and have no results yet, but for those moved aside."""
    begun = {path.parent for root in roots for name in BEGUN for path in root.rglob(name)}
    found = {one.resolve(): one for one in sorted(begun) if not (one / "results.json").exists()}
    return [one for one in found.values() if "~" not in one.resolve().name]


def _order(folder: Path) -> tuple[Any, ...]:
    """Runs under their own name come before copies under another, seed2 before seed10."""
    return not folder.name.startswith("seed"), folder.parent, len(folder.name), folder.name


def _called(run: Run, base: Path) -> str:
    parent = run.folder.parent
    shown = parent.relative_to(base).parts if parent.is_relative_to(base) else ()
    own = parent.parts[1:]  # no name begins at the root
    if parent.name == run.identity:
        return "/".join(shown if len(shown) > 3 else own[-3:])
    return "/".join([*(shown or own[-1:]), run.identity])


def _settings(names: Sequence[str], series: Sequence[Sequence[Run]]) -> list[str]:
    """What differs among series of one experiment, data set and variant, as one writes it.

    Evaluators count only where nothing else tells two identities apart.

    Args:
        names: of the series' folders.
        series: their runs.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    for place, (name, (first, *_)) in enumerate(zip(names, series, strict=True)):
        alike[first.experiment, *name.split("/")[-3:-1]].append(place)
    told = [""] * len(series)
    for places in alike.values():
        firsts = [series[place][0] for place in places]
        untold = UNTOLD | set.intersection(*({*constant_keys(run.config.get("data"))} for run in firsts))
        for left_out in ({*untold, "evaluators"}, untold):
            found = differences([run.config for run in firsts], left_out)
            texts = [
                " ".join(f"{key}={values[place]}" for key, values in found.items())
                for place in range(len(firsts))
            ]
            if len(set(texts)) == len({run.identity for run in firsts}):
                break
        for place, first, text in zip(places, firsts, texts, strict=True):
            begun = first.config["weights"] is not None and "weights" not in found  # it is always told
            told[place] = f"{text} weights={first.config['weights']}".strip() if begun else text
    return told


def _read(folder: Path, split: str) -> Run:
    results = plain(json.loads((folder / "results.json").read_text(encoding="utf-8")))
    config, environment = {**results["config"]}, results["environment"]
    for key, value in LATER_KEYS.items():
        group, _, name = key.rpartition(".")
        node = config.get(group) if group else config
        if isinstance(node, dict):  # a stranger's may be anything
            node.setdefault(name, value)
    paper = config["reference"]
    metrics = {tag: float(value) for tag, value in results.items() if tag.startswith(f"{split}/")}
    seconds = float(environment["seconds"])
    for name, value in (*metrics.items(), ("seconds", seconds)):
        if not abs(value) < 1e100:  # also what is not a number
            raise ValueError(f"{name} is {value}")
    return Run(
        folder,
        str(results["identity"]),
        str(results["data"]["fingerprint"]),
        int(config["seed"]),
        _experiment(folder / ".hydra" / "overrides.yaml"),
        int(results["epochs"]),
        tuple(map(int, results.get("lengths", ()))),
        metrics,
        None if paper is None else check(Reference, paper, "reference"),
        config,
        environment,
        seconds,
        note(results),
    )


def note(results: Mapping[str, Any]) -> str:
    """What is to be known of a run: of its data, of labels that it has seen beside its own, of its rates."""
    told = str(results["data"]["note"])
    start, lengths = results.get("start"), [counted(int(n), "epoch") for n in results.get("lengths", ())]
    if isinstance(start, Mapping) and start["labels"]:
        told += f"; started with weights that have learned from {start['labels']}"
    if lengths:
        told += f"; continued after its rates had fallen over {' and '.join(lengths)}"
    return told.removeprefix("; ")


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
