"""What benchmark.py found, as tables and plots."""

import statistics
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table


def comparison_table(found: dict[str, Any]) -> Table:
    """Medians, and of wall time also the quartiles."""
    title = f"{found['networks']}, batch {found['batch']}, {found['environment']['device']}"
    first = f"x {found['rows'][0]['name'].removeprefix('ours, ')}"
    columns = ("", "ms a step", "CPU ms", "images/s", first, "by CPU time", "x pythae", "of peak")
    table = Table(*columns, title=title)
    for row in found["rows"]:
        low, middle, high = statistics.quantiles(row["wall"], n=4)
        table.add_row(
            row["name"],
            f"{middle:.3g} ({low:.3g} to {high:.3g})",
            f"{statistics.median(row['cpu']):.1f}",
            f"{row['images_per_second']:,.0f}",
            f"{row['times_first']:.2f}",
            f"{row['times_first_cpu']:.2f}",
            "" if row["times_pythae"] is None else f"{row['times_pythae']:.2f}",
            f"{row['share_of_peak']:.0%}",
        )  # fmt: skip
    return table


def scaling_table(found: dict[str, list[dict[str, Any]]]) -> Table:
    """A line for each setting."""
    table = Table("", "ms a step", "images/s", "MB")
    for name, rows in found.items():
        for row in rows:
            batch = row[name] if name == "batch" else 100
            speed = batch / row["milliseconds"] * 1e3
            figures = f"{row['milliseconds']:.1f}", f"{speed:,.0f}", f"{row['megabytes']:,.0f}"
            table.add_row(f"{name} {row[name]:,}", *figures)
    return table


def comparison_plot(found: dict[str, Any]) -> Figure:
    """Milliseconds a step, a bar for each rival."""
    figure = Figure(figsize=(7, 0.5 * len(found["rows"]) + 1), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    names = [row["name"] for row in found["rows"]]
    medians = [statistics.median(row["wall"]) for row in found["rows"]]
    axes.barh(names, medians, color=["#999999" if not n.startswith("ours") else "#0072b2" for n in names])
    for k, row in enumerate(found["rows"]):
        axes.text(medians[k], k, f" {row['times_first']:.2f}x", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds a step (median)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scaling_plot(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Milliseconds a step and megabytes over each number, all from 0: what doubles looks twice as high."""
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=120)
    for k, (name, rows) in enumerate(found.items()):
        for line, unit in enumerate(("milliseconds", "megabytes")):
            axes = figure.add_subplot(2, len(found), line * len(found) + k + 1)
            axes.plot([row[name] for row in rows], [row[unit] for row in rows], "o-", color="#0072b2")
            axes.margins(0.08)
            axes.set(xlim=0, ylim=0, xlabel=name, ylabel=unit if k == 0 else "")
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.spines[["top", "right"]].set_visible(False)
    return figure
