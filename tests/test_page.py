"""The report as a page: nothing gets into it but what is meant, and what is meant is drawn."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import PAPER, Run, finished
from PIL import Image

from aae_runner.differences import differences
from aae_runner.page import page
from aae_runner.page.curves import POINTS, panels, read_curves
from aae_runner.report import comma_separated, markdown, seeds_table
from aae_runner.series import read_series

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m|\ud800"


def metrics(folder: Path, *lines: str) -> None:
    (folder / "metrics.jsonl").write_text("\n".join(lines))


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] == "script":
            self.scripts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_a_strangers_run_puts_no_markup_into_a_page_and_no_command_into_a_terminal(tmp_path: Path) -> None:
    paper = {**PAPER, "metric": f"test/{HOSTILE}", "source": HOSTILE}
    for number in (1, 2):
        name = f"<script>alert({number})<"  # a folder's name cannot hold a slash
        folder = finished(
            tmp_path / name / "seed0",
            **{f"test/{HOSTILE}": 0.5},
            config={"reference": paper, HOSTILE: f"{HOSTILE}{number}", "phases": {HOSTILE: number}},
            data={"note": HOSTILE},
            environment={HOSTILE: f"{HOSTILE}{number}", "torch": HOSTILE, "seconds": 1},
        )
        metrics(folder, *(json.dumps({"epoch": epoch, f"loss/{HOSTILE}": 1}) for epoch in range(3)))
        (folder / "figures").mkdir()
        Image.new("RGB", (8, 8)).save(folder / "figures" / "<script>alert(1)<.png")
        (folder / "figures" / "other.png").write_text(HOSTILE.encode(errors="replace").decode())
    series, damaged = read_series([tmp_path])
    assert not damaged
    text = page(series)
    text.encode()
    finished(tmp_path / "clean" / "seed0")
    clean = Elements(page(read_series([tmp_path / "clean"])[0]))
    found = Elements(text)
    assert "alert(1)" in text
    assert found.scripts == clean.scripts
    assert found.names.count("script") == 1
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert all(value.startswith("#experiment-") for value in found.values("href"))
    assert all(value.startswith("data:image/png;base64,") for value in found.values("src"))
    assert found.values("content")[0] == clean.values("content")[0]
    assert "script-src 'sha256-" in found.values("content")[0]
    for shown in (seeds_table(series), markdown(series), comma_separated(series)):
        assert "\x1b" not in shown
        shown.encode()
    assert "<script>" not in markdown(series)


def test_pictures_are_said_in_words_made_small_and_missed_where_damaged(tmp_path: Path) -> None:
    figures = finished(tmp_path / "seed0") / "figures"
    figures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 3200, 4), dtype=np.uint8)
    Image.fromarray(noise).save(figures / "my_walk.png")
    (figures / "samples.png").write_bytes((figures / "my_walk.png").read_bytes()[:999])
    text = page(read_series([tmp_path])[0])
    found = Elements(text)
    assert found.values("alt") == ["my walk (seed0)."]
    assert found.values("width") == ["1600"]
    assert len(text) < (figures / "my_walk.png").stat().st_size / 4
    assert text.count("This picture is damaged.") == 1


def test_every_figure_of_the_programs_own_has_a_caption(run: Run) -> None:
    for variant in ("semi_supervised", "basic"):
        text = page(read_series([run(variant).folder])[0])
        for path in (run(variant).folder / "figures").glob("*.png"):
            assert f">{path.stem.replace('_', ' ')} (" not in text


def test_learning_curves_have_a_panel_a_tag_and_a_line_a_seed(tmp_path: Path) -> None:
    lines = [json.dumps({"epoch": e, "loss/a": 0.5 + e / 9, "lr/a": 1, "test/b": 1}) for e in range(9)]
    lines += [json.dumps({"epoch": e, "valid/error_rate": 10.0**-e}) for e in (1, 2, 3)]
    metrics(tmp_path, *lines, "{", "[1]", '{"epoch": "1", "loss/a": 2}', '{"loss/a": 3}', '{"epoch": 9')
    curves = read_curves(tmp_path)
    rate, loss = panels([curves, curves], ["seed0", "seed1"])
    assert rate.get("aria-label") == (
        "valid / error rate (%) over 3 epochs, logarithmic axis; at the end: seed0 0.1, seed1 0.1"
    )
    assert "logarithmic" not in str(loss.get("aria-label"))
    assert len([one for one in loss.iter("polyline") if "line" in str(one.get("class"))]) == 2
    assert not read_curves(tmp_path / "nowhere")


def test_long_curves_are_thinned_to_means(tmp_path: Path) -> None:
    metrics(tmp_path, *(json.dumps({"epoch": e, "loss/a": e % 2}) for e in range(50 * POINTS)))
    curve = read_curves(tmp_path)["loss/a"]
    assert len(curve) == POINTS
    assert {value for _, value in curve} == {0.5}


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 0.0),
        (1e-320, 1e-310),
        (-1e29, 1e29),
        (1.0, 1.0 + 1e-15),
        (1e-29, 1e29),
        (1.0, 10.1),
        (float("nan"), 1.0, 2.0, float("inf"), 1e300),
    ],
)
def test_whatever_a_curve_holds_is_drawn_within_its_panel(values: tuple[float, ...], tmp_path: Path) -> None:
    metrics(tmp_path, *(json.dumps({"epoch": e, "loss/a": value}) for e, value in enumerate(values)))
    (panel,) = panels([read_curves(tmp_path)], ["seed0"])
    texts = [one.text for one in panel.iter("text")]
    assert 2 < len(texts) < 18
    for line in panel.iter("polyline"):
        for point in str(line.get("points")).split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 320
            assert 0 <= y <= 190


def test_configs_differ_by_key_and_components_of_other_classes_as_a_whole() -> None:
    first = {
        "heads": {"style": {"_target_": "a.Plain", "size": 2}},
        "phases": {"one": {"_target_": "a.Phase", "every": 1, "stream": "all"}},
        "schedule": {"epochs": 5, "decay": None},
        "seed": 0,
        "evaluators": {},
    }
    second = {
        "heads": {"style": {"_target_": "b.Gaussian", "size": 2}, "label": {"_target_": "a.Label"}},
        "phases": {"one": {"_target_": "a.Phase", "every": 2, "stream": "all"}},
        "schedule": {"epochs": 9, "decay": [1, 2]},
        "seed": 1,
        "evaluators": {"samples": {"_target_": "a.Samples"}},
    }
    assert differences([first, second], ["seed", "evaluators"]) == {
        "heads.style": ["Plain(size=2)", "Gaussian(size=2)"],
        "heads.label": ["-", "Label()"],
        "phases.one.every": ["1", "2"],
        "schedule.epochs": ["5", "9"],
        "schedule.decay": ["null", "[1, 2]"],
    }
    assert not differences([first], ())
