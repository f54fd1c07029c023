"""The report as one HTML file that needs nothing else, fit for a screen, a phone and paper.

What it shows may come from a stranger's folder: texts are escaped (`markup`), pictures are drawn anew, and a
browser is told to run no script but the page's own.
"""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from PIL import Image

from aae_runner.differences import differences
from aae_runner.page.curves import color, panels, read_curves
from aae_runner.page.markup import element, table
from aae_runner.report import COLUMNS, cells, said
from aae_runner.series import UNTOLD, Series, plain
from aae_runner.summary import Row, rows
from aae_runner.words import counted

_HERE = Path(__file__).parent
_LARGEST = 1600
"""Pixels of the longer side of a picture; what is larger is scaled down."""
_CAPTIONS = {
    "cluster_gallery": "Clusters: the head of each, decoded from z = 0, and test images that fall into it",
    "confusion": "Classes of the test images (rows) and what they are taken for (columns), per cent of a row",
    "latent_map": "Codes of the test images over their prior; lines hold 50, 90 and 99 % of it",
    "manifold": "The decoder over the percentiles of the prior",
    "reconstructions": "Test images and, below each, its reconstruction",
    "representation": "The representation of the test images",
    "sampled_latent_map": "Samples of q(z|x) of the test images over their prior",
    "samples": "Decoded samples of the prior; the last column shows the training image nearest to the one "
    "before it",
    "style_grid": "Style and class: a row has the style of the image at its left, a column a class",
}
"""Of the figures that come with the program; the others are called by their name."""


def page(series: Sequence[Series]) -> str:
    """A report on one experiment or more."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = "Adversarial autoencoders"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: {_count(series)}"),
        element("style", style),
    )
    main = element(
        "main",
        element("header", element("h1", title), element("p", f"Report on {_count(series)}.")),
        element("h2", "Results"),
        _overview(series),
        *(_section(one, number) for number, one in enumerate(series, 1)),
        *_compared(series),
        element("h2", "Environment"),
        *_environment(
            {
                f"{number} {one.name} {run.name}": run.environment
                for number, one in enumerate(series, 1)
                for run in one.runs
            }
        ),
    )
    whole = element("html", head, element("body", main, element("script", script)), lang="en")
    return "<!doctype html>\n" + tostring(whole, encoding="unicode", method="html") + "\n"


def _count(series: Sequence[Series]) -> str:
    runs = sum(len(one.runs) for one in series)
    return f"{counted(runs, 'run')} of {counted(len(series), 'experiment')}"


def _overview(series: Sequence[Series]) -> Element:
    """The first metric of each experiment, which is the one that the paper has a number for."""
    lines = [
        [
            element("th", f"{number} ", element("a", one.name, href=f"#experiment-{number}"), scope="row"),
            element("td", one.settings),
            *_cells(row),
            element("td", str(row.epochs)),
        ]
        for number, one in enumerate(series, 1)
        for row in rows([one])[:1]
    ]
    caption = (
        "A final metric of each experiment, of the test split where it does not say valid: mean ± standard "
        "deviation over seeds, and the 95 % interval of the mean by Student's t, beside the paper's number, "
        "that of a fresh prior sample, or that of another experiment. A difference from the last is the mean "
        "over the seeds that both have, ± its standard error."
    )
    return table(["experiment", "settings", *COLUMNS, "epochs"], lines, caption, "sortable")


def _cells(row: Row) -> list[Element]:
    """By `COLUMNS`, with the numbers that they are sorted by."""
    metric, *shown = cells(row)
    keys = row.mean, row.low, row.seeds, row.reference, row.difference
    return [
        element("th", _words(metric), scope="row"),
        *(
            element("td", text, data_value="" if key is None else key)
            for text, key in zip(shown, keys, strict=True)
        ),
    ]


def _section(series: Series, number: int) -> Element:
    """What one experiment looked like."""
    experiment = series.runs[0].experiment
    about = ", ".join(filter(None, (series.settings, said(series))))
    section = element(
        "section",
        element("h2", f"{number} {experiment or series.folder}"),
        element("p", f"{series.folder}: " * bool(experiment) + f"{about}."),
        id=f"experiment-{number}",
    )
    if found := rows([series]):
        caption = f"Final metrics of {series.name}."
        section.append(table([*COLUMNS], [_cells(row) for row in found], caption, "sortable"))
    names = [run.name for run in series.runs]
    if drawn := panels([read_curves(run.folder) for run in series.runs], names):
        legend = [
            element("span", element("i", class_=color(place)), name, class_="key")
            for place, name in enumerate(names)
        ]
        shown = element("figcaption", f"Learning curves of {series.name}, a line each seed. ", *legend)
        section.append(element("figure", element("div", *drawn, class_="panels"), shown))
    first = series.runs[0]
    pictures = [_picture(path, names[0]) for path in sorted((first.folder / "figures").glob("*.png"))]
    section.append(element("div", *pictures, class_="pictures"))
    return section


def _picture(path: Path, run: str) -> Element:
    """A PNG of at most `_LARGEST` pixels and 256 colors, which is enough for plots and gray images."""
    caption = f"{_CAPTIONS.get(path.stem, _words(plain(path.stem)))} ({run})."
    shown = element("figcaption", caption)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.thumbnail((_LARGEST, _LARGEST))
            content = io.BytesIO()
            image.convert("RGB").quantize(256).save(content, "PNG", optimize=True)
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return element("figure", element("p", "This picture is damaged."), shown)
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return element("figure", element("img", src=source, alt=caption, width=width, height=height), shown)


def _compared(series: Sequence[Series]) -> list[Element]:
    """What differs between the configs: each value of a key with the numbers of its experiments."""
    lines = []
    left_out = {*UNTOLD, "evaluators"} - {"schedule.epochs"}
    for key, values in differences([one.runs[0].config for one in series], left_out).items():
        shown = []
        for value in dict.fromkeys(values):
            where = ", ".join(str(number) for number, one in enumerate(values, 1) if one == value)
            shown.append(element("div", value, element("span", f" ({where})")))
        lines.append([element("th", key, scope="row"), element("td", *shown)])
    if not lines:
        return []
    caption = "What differs between the configs, of what changes what is learned; experiments in parentheses."
    return [element("h2", "Configurations"), table(["key", "values"], lines, caption, "code")]


def _environment(runs: Mapping[str, Mapping[str, Any]]) -> list[Element]:
    """What all runs share as a sentence, the rest as a table."""
    keys = dict.fromkeys(key for one in runs.values() for key in one)
    values = {key: [str(one.get(key, "-")) for one in runs.values()] for key in keys}
    own = [key for key, column in values.items() if len(set(column)) > 1]
    shared = ", ".join(f"{_words(key)} {values[key][0]}" for key in keys if key not in own)
    sentence = element("p", f"{shared}.")
    if not own:
        return [sentence]
    lines = [
        [element("th", name, scope="row"), *(element("td", values[key][place]) for key in own)]
        for place, name in enumerate(runs)
    ]
    shown = table(
        ["run", *map(_words, own)], lines, "Where the runs were computed, as far as it differs.", "sortable"
    )
    return [sentence, shown] if shared else [shown]


def _words(name: str) -> str:
    return name.replace("_", " ")
