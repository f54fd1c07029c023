"""What a person reads when a run has ended, and when many have."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
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


def readable(tag: str, value: float) -> str:
    """Rates are printed as per cent, other numbers with four digits."""
    return f"{100 * value:.2f} %" if tag.endswith("_rate") else f"{value:.4g}"


def closing_table(results: Mapping[str, Any], folder: Path) -> Group:
    """The final metrics, where the run is, and how to look at it."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for tag, value in results.items():
        if tag.startswith("test/"):
            table.add_row(_NAMES.get(tag, tag), readable(tag, value))
    if (reference := results["config"]["reference"]) is not None:
        table.add_row(reference["source"], readable(reference["metric"], reference["value"]))
    lines = [f"pictures:    {folder / 'figures'}", f"TensorBoard: tensorboard --logdir {folder}"]
    if note := results["data"]["note"]:
        lines.insert(0, f"Data: {note}.")
    return Group(table, *(Text(line, overflow="fold") for line in lines))


def seeds_table(runs: Path) -> Table:
    """Every experiment under a folder: each final metric as mean ± standard deviation over its seeds.

    Raises:
        ConfigError: there is no finished run.
    """
    groups: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(runs.rglob("results.json")):
        if "~" not in path.parent.name:  # moved aside by resume=false
            groups[path.parent.parent].append(json.loads(path.read_text(encoding="utf-8")))
    if not groups:
        raise ConfigError(f"{runs}: holds no finished run. Name the folder given as runs=FOLDER.")
    table = Table("run", "epochs", "seeds", "seconds", "test metric", "mean ± std", box=SIMPLE_HEAD)
    table.columns[0].overflow = "fold"
    table.columns[-1].no_wrap = True
    for folder, group in groups.items():
        epochs = "/".join(str(epochs) for epochs in sorted({one["epochs"] for one in group}))
        seconds = statistics.mean(one["environment"]["seconds"] for one in group)
        noted = " *" if group[0]["data"]["note"] else ""
        head = [f"{folder.relative_to(runs)}{noted}", epochs, str(len(group)), f"{seconds:.0f}"]
        for tag in (tag for tag in group[0] if tag.startswith("test/")):
            values = [one[tag] for one in group if tag in one]
            table.add_row(*head, tag.removeprefix("test/"), _over_seeds(tag, values))
            head = [""] * len(head)
        table.add_section()
    if notes := {one["data"]["note"] for group in groups.values() for one in group if one["data"]["note"]}:
        table.caption = "* " + "; ".join(sorted(notes))
    return table


def _over_seeds(tag: str, values: Sequence[float]) -> str:
    mean = readable(tag, statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean.removesuffix(' %')} ± {readable(tag, statistics.stdev(values))}"
