"""What a person reads when a run has ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

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
        table.add_row(f"{reference['source']}", readable(reference["metric"], reference["value"]))
    lines = [f"{folder}/figures   pictures", f"tensorboard --logdir {folder}"]
    if note := results["data"]["note"]:
        lines.insert(0, f"Data: {note}.")
    return Group(table, *(Text(line) for line in lines))
