"""Learning curves from metrics.jsonl, drawn as SVG: a panel for each tag, a line for each seed."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from aae_runner.page.markup import element
from aae_runner.series import plain
from aae_runner.summary import is_share

Curve = list[tuple[float, float]]
"""(epoch, value) in order of time."""

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 312, 26, 164
POINTS = 200
"""A curve has less than twice as many: what is more, the page cannot show and the file need not hold."""


def read_curves(folder: Path) -> dict[str, Curve]:
    """The losses and validation metrics of a run by tag, without what cannot be read or drawn."""
    found: dict[str, Curve] = defaultdict(list)
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            for tag, value in row.items():
                if tag.startswith(("valid/", "loss/")) and -1e30 < value < 1e30 and 0 <= row["epoch"] < 1e30:
                    found[tag].append((row["epoch"], value if abs(value) > 1e-30 else 0.0))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            continue
    return {str(plain(tag)): _thinned(curve) for tag, curve in found.items()}


def panels(runs: Sequence[dict[str, Curve]], names: Sequence[str]) -> list[Element]:
    """A drawing for each tag that has a line in a run; validation metrics first.

    Args:
        runs: the curves of each.
        names: of the runs.
    """
    tags = {tag for run in runs for tag, curve in run.items() if len(curve) > 1}
    order = list(dict.fromkeys(tag for run in runs for tag in run if tag in tags))
    return [
        _panel(tag, [run.get(tag, []) for run in runs], names)
        for tag in sorted(order, key=lambda tag: not tag.startswith("valid/"))
    ]


def _panel(tag: str, curves: list[Curve], names: Sequence[str]) -> Element:
    unit = 100 if is_share(tag) else 1
    curves = [[(epoch, unit * value) for epoch, value in curve] for curve in curves]
    values = [value for curve in curves for _, value in curve]
    low, high, last = min(values), max(values), max(curve[-1][0] for curve in curves if curve) or 1
    logarithmic = low > 0 and high > 10 * low
    if low == high:
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    bottom, top = (math.log(low), math.log(high)) if logarithmic else (low, high)

    def x(epoch: float) -> float:
        return LEFT + (RIGHT - LEFT) * epoch / last

    def y(value: float) -> float:
        share = ((math.log(value) if logarithmic else value) - bottom) / (top - bottom)
        return BOTTOM - 5 - (BOTTOM - TOP - 10) * share

    title = tag.replace("_", " ").replace("/", " / ") + (" (%)" if unit == 100 else "")
    ends = ", ".join(f"{name} {curve[-1][1]:.4g}" for name, curve in zip(names, curves, strict=True) if curve)
    scale = ", logarithmic axis" if logarithmic else ""
    drawing = element(
        "svg",
        element("text", title, x=4, y=14, class_="title"),
        element("text", "epoch", x=RIGHT, y=HEIGHT - 2, class_="right"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_label=f"{title} over {last:g} epochs{scale}; at the end: {ends}",
    )  # fmt: skip
    for tick in _decades(low, high) if logarithmic else _ticks(low, high):
        drawing.append(_line("grid", [(LEFT, y(tick)), (RIGHT, y(tick))]))
        drawing.append(element("text", f"{tick:.6g}", x=LEFT - 5, y=f"{y(tick) + 3.5:.1f}", class_="right"))
    for tick in _ticks(0, last):
        drawing.append(element("text", f"{tick:.6g}", x=f"{x(tick):.1f}", y=BOTTOM + 13, class_="middle"))
    drawing.append(_line("axis", [(LEFT, BOTTOM), (RIGHT, BOTTOM)]))
    for number, curve in enumerate(curves):
        drawing.append(_line(color(number), [(x(epoch), y(value)) for epoch, value in curve]))
    return drawing


def color(number: int) -> str:
    """The class of the line of a run, by its number; six colors take turns."""
    return f"line c{number % 6}"


def _line(kind: str, points: Curve) -> Element:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=kind)


def _thinned(curve: Curve) -> Curve:
    """Means of so many neighbors that about `POINTS` are left."""
    step = max(1, len(curve) // POINTS)
    parts = [curve[start : start + step] for start in range(0, len(curve), step)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two others."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * one for one in (1, 2, 5, 10) if unit * one >= rough)
    return [step * one for one in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: 1, 2, 5, 10, 20 and so on, or powers of ten alone."""
    powers = [10.0**one for one in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    found = [power * one for power in powers for one in ((1, 2, 5) if len(powers) < 4 else (1,))]
    found = [one for one in found if low <= one <= high]
    return found[:: 1 + len(found) // 7]
