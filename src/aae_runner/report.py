"""What a person reads when a run has ended, and when many have."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aae_runner.errors import ConfigError

_NAMES = {
    "test/error_rate": "test error",
    "test/nearest_neighbor_error_rate": "1-nearest-neighbor on the same labels",
    "test/reconstruction_error": "reconstruction error (half the squared distance)",
}


def readable(tag: str, value: float, deviation: float | None = None) -> str:
    """Rates and accuracies are printed as per cent, other numbers with four digits."""
    share = tag.endswith(("_rate", "_accuracy"))
    shown = [f"{100 * one:.2f}" if share else f"{one:.4g}" for one in (value, deviation) if one is not None]
    return " ± ".join(shown) + (" %" if share else "")


def _tags(results: Mapping[str, Any]) -> list[str]:
    """Of the final metrics that have a line of their own."""
    return [tag for tag in results if tag.startswith("test/") and not tag.endswith("_reference")]


def _beside(tag: str, results: Mapping[str, Any]) -> str:
    """What a metric is to be compared with: the paper's number, or that of a fresh prior sample."""
    paper = results["config"]["reference"]
    if paper is not None and paper["metric"] == tag:
        return f"{readable(tag, paper['value'], paper['deviation'])} ({paper['source']})"
    if (fresh := results.get(f"{tag}_reference")) is not None:
        return f"{readable(tag, fresh)} (a fresh prior sample)"
    return ""


def closing_table(results: Mapping[str, Any], folder: Path) -> Group:
    """The final metrics, where the run is, and how to look at it."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for tag in _tags(results):
        table.add_row(_NAMES.get(tag, tag), readable(tag, results[tag]), _beside(tag, results))
    lines = [f"pictures:    {folder / 'figures'}", f"TensorBoard: tensorboard --logdir {folder}"]
    if note := results["data"]["note"]:
        lines.insert(0, f"Data: {note}.")
    return Group(table, *(Text(line, overflow="fold") for line in lines))


def seeds_table(runs: Path) -> Table:
    """Every experiment under a folder: each final metric as mean ± standard deviation over its seeds.

    Runs of unequal lengths are told apart. Beside stands the paper's number, or that of a fresh prior sample.

    Raises:
        ConfigError: there is no finished run.
    """
    groups: dict[tuple[Path, int], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(runs.rglob("results.json")):
        if "~" not in path.parent.name:  # moved aside by resume=false
            results = json.loads(path.read_text(encoding="utf-8"))
            groups[path.parent.parent, results["epochs"]].append(results)
    if not groups:
        raise ConfigError(f"{runs}: holds no finished run. Name the folder given as runs=FOLDER.")
    names = "run", "epochs", "seeds", "seconds", "test metric", "mean ± std", "to compare with"
    table = Table(*names, box=SIMPLE_HEAD)
    table.columns[0].overflow = "fold"
    table.columns[-2].no_wrap = True
    for (folder, epochs), group in groups.items():
        seconds = statistics.mean(one["environment"]["seconds"] for one in group)
        noted = " *" if group[0]["data"]["note"] else ""
        head = [f"{folder.relative_to(runs)}{noted}", str(epochs), str(len(group)), f"{seconds:.0f}"]
        for tag in _tags(group[0]):
            values = [one[tag] for one in group if tag in one]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found = readable(tag, statistics.mean(values), deviation)
            table.add_row(*head, tag.removeprefix("test/"), found, _beside(tag, group[0]))
            head = [""] * len(head)
        table.add_section()
    if notes := {one["data"]["note"] for group in groups.values() for one in group if one["data"]["note"]}:
        table.caption = "* " + "; ".join(sorted(notes))
    return table
