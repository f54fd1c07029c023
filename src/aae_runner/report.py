"""What a person reads when a run has ended, and when many have."""

import csv
import io
import json
import math
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from aae_runner.series import Series, note, plain
from aae_runner.summary import Row, is_share, rows
from aae_runner.words import counted

_NAMES = {
    "test/error_rate": "test error",
    "test/nearest_neighbor_error_rate": "1-nearest-neighbor on the same labels",
    "test/reconstruction_error": "reconstruction error (half the squared distance)",
}
COLUMNS = ("metric", "mean ± std", "95 % interval", "seeds", "to compare with", "difference")
"""What `cells` are."""


def readable(tag: str, value: float, deviation: float | None = None) -> str:
    """Rates and accuracies are printed as per cent, other numbers with four digits."""
    return _joined(tag, " ± ", value, deviation)


def _joined(tag: str, between: str, *values: float | None, digits: str = ".4g") -> str:
    share = is_share(tag)
    shown = [f"{100 * one:.2f}" if share else f"{one:{digits}}" for one in values if one is not None]
    return between.join(shown) + (" %" if share else "")


def _digits(deviation: float | None) -> str:
    """The format of a number that is known up to a deviation, of which two digits are shown."""
    places = 1 - math.floor(math.log10(deviation)) if deviation else 9
    return f".{max(0, places)}f" if places < 7 else ".4g"


def cells(row: Row) -> tuple[str, ...]:
    """A row as a person reads it, by `COLUMNS`; a difference of rates is in points, ± its standard error."""
    tag, digits = row.metric, _digits(row.deviation)
    found = _joined(tag, " ± ", row.mean, row.deviation, digits=digits)
    interval, beside, difference = "", "", ""
    if row.low is not None:
        interval = _joined(tag, " to ", row.low, row.high, digits=digits)
    if row.reference is not None:
        beside = f"{readable(tag, row.reference, row.reference_deviation)} ({row.source})"
    if row.difference is not None:
        scale, form, unit = (100, ".2f", " points") if is_share(tag) else (1, ".4g", "")
        error = f" ± {scale * row.difference_error:{form}}" if row.difference_error is not None else ""
        difference = f"{scale * row.difference:+{form}}{error}{unit}"
    return tag.removeprefix("test/"), found, interval, str(row.seeds), beside, difference


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
    for tag in results:
        if tag.startswith("test/") and not tag.endswith("_reference"):
            table.add_row(_NAMES.get(tag, tag), readable(tag, results[tag]), _beside(tag, results))
    lines = [
        f"pictures:    {folder / 'figures'}",
        f"TensorBoard: tensorboard --logdir {shlex.quote(str(folder))}",
    ]
    if told := note(results):
        lines.insert(0, f"Note: {told}.")
    return Group(table, *(Text(line, overflow="fold") for line in lines))


def said(series: Series) -> str:
    """How much was trained, and what is to be known of the data."""
    first, n = series.runs[0], len(series.runs)
    seconds = sum(run.seconds for run in series.runs) / n
    parts = [counted(first.epochs, "epoch"), counted(n, "seed"), f"{seconds:,.0f} s each", first.note]
    return ", ".join(part for part in parts if part)


def show(what: RenderableType) -> None:
    """Prints, as wide as the terminal; where there is none, nothing is folded."""
    Console(width=_width()).print(what)


def _width() -> int:
    return shutil.get_terminal_size((1000, 0)).columns


def seeds_table(series: Iterable[Series]) -> str:
    """A table for each experiment, as wide as the terminal where there is one; empty columns are left out."""
    text = io.StringIO()
    console = Console(file=text, width=_width())
    for one in series:
        experiment = one.runs[0].experiment
        heading = f"{experiment}: {one.folder}" if experiment else one.folder
        columns = zip(COLUMNS, *map(cells, rows([one])), strict=True)
        kept = [column for column in columns if any(column[1:])]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name, *_ in kept:
            table.add_column(name, overflow="fold", no_wrap=name in COLUMNS[:2])
        for line in list(zip(*kept, strict=True))[1:]:
            table.add_row(*map(Text, line))
        about = [Text(text) for text in (heading, one.settings, said(one)) if text]
        console.print(*about, table, sep="\n")
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().rstrip().splitlines())


def waiting(folders: Sequence[Path]) -> str:
    """A line that names runs which are not finished, the first five of them; empty where there is none."""
    if not folders:
        return ""
    named = [str(plain(str(folder))) for folder in folders[:5]]
    more = [f"{len(folders) - 5:,} more"] if len(folders) > 5 else []
    verb = "is" if len(folders) == 1 else "are"
    return f"{counted(len(folders), 'run')} {verb} not finished: {', '.join(named + more)}.\n"


def markdown(series: Iterable[Series]) -> str:
    """One table of all, to be pasted into a text."""
    heading = ("experiment", "settings", "epochs", *COLUMNS, "each seed", "minutes", "computed on", "commit")
    lines = [heading, ("---",) * len(heading)]
    for one in series:
        lines += [
            (one.name, one.settings, str(row.epochs), *cells(row), _each(one, row.metric), *_computed(one))
            for row in rows([one])
        ]
    return "".join(f"| {' | '.join(map(_literal, line))} |\n" for line in lines)


def _each(series: Series, tag: str) -> str:
    values = {run.seed: run.metrics[tag] for run in series.runs if tag in run.metrics}
    return ", ".join(f"{seed}: {readable(tag, value)}" for seed, value in values.items())


def _computed(series: Series) -> tuple[str, str, str]:
    """Minutes of a run, on average; on what, and by which commit of this program."""
    told = [run.environment for run in series.runs]  # a stranger's, perhaps: of any types
    threads = [counted(n, "thread") if isinstance(n := one.get("threads"), int) else "" for one in told]
    devices = dict.fromkeys(f"{one.get('device', '')}, {n}" for one, n in zip(told, threads, strict=True))
    found = (str(one.get("commit") or "unknown").partition("-") for one in told)
    commits = dict.fromkeys(commit[:7] + dash + changed for commit, dash, changed in found)
    minutes = sum(run.seconds for run in series.runs) / len(series.runs) / 60
    return f"{minutes:.1f}", "; ".join(devices), ", ".join(commits)


def comma_separated(series: Iterable[Series]) -> str:
    """One line for each `Row`, under the names of its fields."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    table.writerows(map(asdict, rows(series)))
    return text.getvalue()


def as_json(series: Iterable[Series]) -> str:
    """A list with an object for each `Row`."""
    return json.dumps([asdict(row) for row in rows(series)], indent=2) + "\n"


def _literal(text: str) -> str:
    """A text that Markdown takes as it stands."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escape(text, quote=False))
