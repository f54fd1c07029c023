"""Runs by experiment over their seeds: the rows, and each form in which they are shown."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Command, exit_status, finished, three_seeds

from aae_runner.errors import ConfigError
from aae_runner.page import page
from aae_runner.report import as_json, comma_separated, markdown, seeds_table
from aae_runner.series import read_series
from aae_runner.summary import Row, rows

Report = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Report:
    """Runs `aae report` with arguments: (exit status, stdout, stderr)."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        return exit_status("aae", "report", *arguments), *capfd.readouterr()

    return run


def test_the_report_compares_seed_by_seed_on_the_split_that_one_names(tmp_path: Path, report: Report) -> None:
    for name, rates in (("0123456789", (0.02, 0.03)), ("abcdefabcd", (0.05, 0.08))):
        for seed, rate in enumerate(rates):
            finished(tmp_path / "digits" / "basic" / name / f"seed{seed}", **{"valid/error_rate": rate})
    asked = tmp_path, "--against", "0123456789", "--split", "valid", "--format"
    _, row = json.loads(report(*asked, "json")[1])
    assert (row["metric"], row["difference"]) == ("valid/error_rate", pytest.approx(0.04))
    for form in ("table", "markdown", "html"):
        assert "+4.00 ± 1.00 points" in report(*asked, form)[1]


def test_against_what_there_is_not_the_report_says_what_there_is(tmp_path: Path, report: Report) -> None:
    finished(tmp_path / "digits" / "basic" / "0123456789" / "seed0")
    status, _, said = report(tmp_path, "--against", "012345678")
    assert (status, "no such identity. Did you mean 0123456789?" in said) == (2, True)
    status, _, said = report(tmp_path, "--against", "0123456789")
    nothing = "no other run here has its data, a metric and a seed of it"
    for number, (seed, fingerprint) in enumerate(((0, "g"), (9, "f"))):
        folder = tmp_path / "digits" / "basic" / f"abcdefabc{number}" / f"seed{seed}"
        finished(folder, data={"fingerprint": fingerprint, "note": ""})
        status, _, said = report(tmp_path, "--against", "0123456789")
        assert (status, nothing in said) == (2, True)
    status, _, said = report(tmp_path, "--split", "valid")
    assert (status, "it never looked at the validation split" in said) == (2, True)
    status, _, said = report(tmp_path, "--paper", "--against", "0123456789")
    assert (status, "its numbers are of the test split" in said) == (2, True)


def test_of_several_lengths_each_run_is_compared_with_that_of_its_own(tmp_path: Path, report: Report) -> None:
    for name, seed, epochs, rate in (
        ("0123456789", 0, 5, 0.02), ("0123456789", 0, 9, 0.4), ("0123456789", 1, 9, 0.5),
        ("abcdefabcd", 0, 5, 0.05), ("abcdefabc1", 1, 7, 0.6),
    ):  # fmt: skip
        finished(tmp_path / f"{epochs}" / "digits" / "basic" / name / f"seed{seed}", rate, epochs=epochs)
    found = json.loads(report(tmp_path, "--against", "0123456789", "--format", "json")[1])
    rates = {(row["run"][-10:], row["epochs"]): row for row in found if row["metric"] == "test/error_rate"}
    assert rates["abcdefabcd", 5]["difference"] == pytest.approx(0.03)
    assert rates["abcdefabc1", 7]["difference"] == pytest.approx(0.1)
    assert "9 epochs" in rates["abcdefabc1", 7]["source"]


def test_the_report_gives_mean_and_deviation_over_seeds_of_one_length_beside_the_paper(
    tmp_path: Path,
) -> None:
    for seed, rate in enumerate((0.01, 0.02, 0.03)):
        folder = tmp_path / "digits" / "basic" / "0123456789" / f"seed{seed}"
        finished(folder, rate, epochs=5 if seed < 2 else 9)
    said = seeds_table(read_series([tmp_path])[0])
    assert "1.50 ± 0.71 %" in said  # of equal lengths
    assert "3.00 %" in said
    assert said.count("1.90 ± 0.10 % (Table 2)") == 2
    assert "-0.40 points" in said
    assert "+1.10 points" in said
    assert said.count("0.9 (a fresh prior sample)") == 2
    assert "coverage_reference" not in said
    assert "digits/basic/0123456789" in said


def test_a_metric_that_only_a_later_seed_has_is_shown_and_so_is_the_papers_number(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "basic" / "0123456789"
    finished(folder / "seed0", config={"reference": None})
    finished(folder / "seed1", **{"test/clusters": 9.0})
    ((series,), _) = read_series([tmp_path])
    found = {row.metric: row for row in rows([series])}
    assert (found["test/clusters"].seeds, found["test/clusters"].mean) == (1, 9.0)
    assert (found["test/error_rate"].seeds, found["test/error_rate"].source) == (2, "Table 2")


SWEEP: dict[str, dict[str, Any]] = {
    "basic/1": {"data": {"labels": 50}, "prior": 1, "evaluators": {"a": {"every": 1}}},
    "basic/2": {"data": {"labels": 100}, "prior": 2, "evaluators": {"a": {"every": 2}}},
    "vae/3": {"data": {"labels": 7}},
}


def test_each_series_of_a_sweep_tells_what_the_others_of_its_variant_have_otherwise_in_every_format(
    tmp_path: Path,
) -> None:
    for seed in (0, 1):
        for name, config in SWEEP.items():
            finished(
                tmp_path / "digits" / name / f"seed{seed}", config={"reference": None, "seed": seed, **config}
            )
    series, _ = read_series([tmp_path])
    told = {one.folder: one.settings for one in series}
    assert told == {
        "digits/basic/1": "data.labels=50", "digits/basic/2": "data.labels=100", "digits/vae/3": ""
    }  # fmt: skip
    assert "digits/basic/2\ndata.labels=100\n" in seeds_table(series)
    assert "digits/vae/3\n5 epochs" in seeds_table(series)
    for text in (markdown(series), comma_separated(series), as_json(series), page(series)):
        assert "data.labels=50" in text
        assert "data.labels=7" not in text
    assert {row["settings"] for row in json.loads(as_json(series))} == {*told.values()}


@pytest.mark.parametrize(("checksums", "told"), [(True, "heads=0"), (False, "data.root=/0 heads=0")])
def test_where_files_lie_is_told_only_of_those_without_checksums(
    tmp_path: Path, checksums: bool, told: str
) -> None:
    for k in (0, 1):
        config = {"reference": None, "data": {"root": f"/{k}", "checksums": checksums}, "heads": k}
        finished(tmp_path / "digits" / "basic" / str(k) / "seed0", config=config)
    (first, _), _ = read_series([tmp_path])
    assert first.settings == told


def test_what_a_stranger_calls_data_or_threads_ends_in_no_traceback(tmp_path: Path, report: Report) -> None:
    environment = {"seconds": 2.0, "threads": "many", "commit": 7}
    for name in ("1", "2"):
        config = {"reference": None, "data": "x", "heads": name}
        finished(tmp_path / "digits" / "basic" / name / "seed0", config=config, environment=environment)
    for kind in ("table", "markdown", "html"):
        assert report(tmp_path, "--format", kind)[0] == 0


def test_evaluators_are_told_only_where_nothing_else_tells_two_series_apart(tmp_path: Path) -> None:
    for name in ("basic/1", "basic/2"):
        config = {**SWEEP[name], "data": {"labels": 50}}
        finished(tmp_path / "digits" / name / "seed0", config={"reference": None, **config})
    series, _ = read_series([tmp_path])
    assert [one.settings for one in series] == ["evaluators.a.every=1", "evaluators.a.every=2"]


def test_a_run_of_before_there_was_a_key_is_not_told_from_others_by_it(tmp_path: Path) -> None:
    for name, data in (("1", {"labels": 50}), ("2", {"labels": 60, "train_on": "train"})):
        config = {"reference": None, "heads": {}, "data": data}
        finished(tmp_path / "digits" / "basic" / name / "seed0", config=config)
    series, _ = read_series([tmp_path])
    assert [one.settings for one in series] == ["data.labels=50", "data.labels=60"]


def test_each_format_holds_the_same_rows(tmp_path: Path) -> None:
    series = three_seeds(tmp_path)
    (row, _), names = rows(series), [field.name for field in fields(Row)]
    lines = list(csv.DictReader(io.StringIO(comma_separated(series))))
    objects = json.loads(as_json(series))
    assert list(lines[0]) == list(objects[0]) == names
    assert float(lines[0]["mean"]) == objects[0]["mean"] == row.mean
    assert (lines[0]["experiment"], objects[0]["experiment"]) == ("", None)
    for text in (seeds_table(series), markdown(series), page(series)):
        for cell in ("2.33 ± 1.53 %", "0.00 to 6.13 %", "1.90 ± 0.10 % (Table 2)", "+0.43 points"):
            assert cell in text
    table = markdown(series).splitlines()
    assert {line.replace("\\|", "").count("|") for line in table} == {table[1].count("|")}


def test_a_copied_run_counts_once_and_a_sentence_names_it(tmp_path: Path, report: Report) -> None:
    three_seeds(tmp_path)
    shutil.copytree(tmp_path / "digits", tmp_path / "received" / "digits")
    shutil.copytree(tmp_path / "digits" / "basic" / "0123456789" / "seed2", tmp_path / "mine")
    ((series,), left_out) = read_series([tmp_path])
    assert [run.seed for run in series.runs] == [0, 1, 2]
    assert len(left_out) == 4
    assert f"{tmp_path / 'mine'}: the same configuration and seed as " in left_out[-1]
    status, said, warned = report(tmp_path)
    assert (status, "3 seeds" in said, warned.count("so it is left out")) == (0, True, 4)


def results(**changed: Any) -> str:
    whole = {
        "identity": "1", "epochs": 5, "config": {"seed": 0, "reference": None},
        "data": {"fingerprint": "f", "note": ""}, "environment": {"seconds": 1},
    }  # fmt: skip
    return json.dumps(whole | changed)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        results(config="none"),
        results(config={"seed": 0, "reference": {"value": 1}}),
        results(epochs=float("inf")),
        results(**{"test/error_rate": float("nan")}),
        results(**{"test/error_rate": 1e300}),
        results(**{"test/error_rate": [1]}),
    ],
)
def test_damaged_results_are_one_line_and_the_others_are_shown(
    content: str, tmp_path: Path, report: Report
) -> None:
    three_seeds(tmp_path)
    damaged = tmp_path / "seed0" / "results.json"
    damaged.parent.mkdir()
    damaged.write_text(content, encoding="latin-1")
    status, said, warned = report(tmp_path)
    assert (status, warned.count("\n")) == (0, 1)
    assert f"{damaged}: damaged" in warned
    assert "2.33 ± 1.53 %" in said


def test_a_folder_without_runs_is_a_sentence_with_status_2(tmp_path: Path, report: Report) -> None:
    with pytest.raises(ConfigError):
        read_series([tmp_path])
    status, said, warned = report(tmp_path)
    assert (status, said) == (2, "")
    assert "no finished run" in warned
    assert report(tmp_path / "nowhere")[0] == 2


def test_a_file_is_written_as_its_ending_says_or_as_one_asks(tmp_path: Path, report: Report) -> None:
    three_seeds(tmp_path)
    for name, beginning in (
        ("all.csv", "experiment,run,"),
        ("all.json", "[\n"),
        ("all.md", "| experiment |"),
        ("all.html", "<!doctype html>"),
        ("all.txt", "digits/basic/"),
    ):
        assert report(tmp_path, "-o", tmp_path / name) == (0, "", "")
        assert (tmp_path / name).read_text().startswith(beginning)
    assert report(tmp_path, "--format", "csv")[1].startswith("experiment,run,")
    assert report(tmp_path, "--format", "csv", "-o", tmp_path / "again.csv") == (0, "", "")
    assert report(tmp_path, "-o", tmp_path / "all.csv" / "below.csv")[0] == 6


def test_runs_that_are_not_finished_are_named_at_the_end_of_the_terminals_table_alone(
    tmp_path: Path, report: Report
) -> None:
    three_seeds(tmp_path)
    experiment = tmp_path / "digits" / "basic" / "0123456789"
    (experiment / "seed1" / "run.log").touch()
    (experiment / "seed3~1" / "checkpoints").mkdir(parents=True)
    assert "not finished" not in report(tmp_path)[1]
    (experiment / "seed3" / "checkpoints").mkdir(parents=True)
    last = report(tmp_path, experiment)[1].splitlines()[-1]
    assert last == f"1 run is not finished: {experiment / 'seed3'}."
    for seed in range(4, 10):
        (experiment / f"seed{seed}").mkdir()
        (experiment / f"seed{seed}" / "run.log").touch()
    last = report(tmp_path)[1].splitlines()[-1]
    assert last.startswith("7 runs are not finished: ")
    assert last.endswith(f"{experiment / 'seed7'}, 2 more.")
    for kind in ("markdown", "csv", "json", "html"):
        assert "not finished" not in report(tmp_path, "--format", kind)[1]


def test_the_papers_numbers_alone_stand_with_each_seed_and_where_it_was_computed(
    tmp_path: Path, report: Report
) -> None:
    for seed, rate, commit in ((0, 0.02, "0123456789"), (1, 0.03, "123456789-dirty")):
        environment = {"seconds": 90.0, "device": "cpu: X", "threads": 2, "commit": commit}
        finished(tmp_path / "digits" / "basic" / "1" / f"seed{seed}", rate, environment=environment)
    other = finished(tmp_path / "digits" / "basic" / "2" / "seed0", config={"reference": None}).parent
    status, said, _ = report(tmp_path, "--paper", "--format", "markdown")
    assert status == 0
    (line,) = said.splitlines()[2:]
    computed = "1.5", "cpu: X, 2 threads", "0123456, 1234567-dirty"
    for cell in ("2.50 ± 0.71 %", "0: 2.00 %, 1: 3.00 %", *computed):
        assert f" {cell} |" in line
    assert "test/coverage" not in report(tmp_path, "--paper", "--format", "csv")[1]
    status, _, said = report(other, "--paper")
    assert (status, "of none of these runs the paper has a number" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "x.pdf"), "x.pdf: a name that ends in .txt or .md or"),
        (("-o", "x"), "x: a name that ends in"),
        (("-o", "x.html", "--format", "csv"), "x.html: by its ending html, but --format says csv"),
    ],
)
def test_a_file_whose_ending_says_no_format_or_another_one_is_refused(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    three_seeds(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, _, warned = report(tmp_path, *arguments)
    assert (status, said in warned) == (2, True)
    assert not list(tmp_path.glob("x*"))


def test_an_experiment_is_called_by_the_name_it_was_started_with(
    command: Command, tmp_path: Path, report: Report
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "my_first.yaml").write_text(
        "# @package _global_\ndefaults: [{override /variant: basic}]\n"
    )
    status, said = command("--config-dir", "mine", "experiment=my_first", "schedule.epochs=1", *TINY)
    assert status == 0, said
    ((series,), _) = read_series([Path("runs")])
    assert series.runs[0].experiment == "my_first"
    assert report()[1].startswith("my_first: digits/basic/")
    text = page([series])
    assert "<h2>1 my_first</h2>" in text
    assert "Codes of the test images over their prior" in text


def test_reports_need_no_torch(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    program = (
        "import sys; from aae_runner import toolbox; toolbox.main(); "
        "sys.exit(f'torch is imported' if 'torch' in sys.modules else 0)"
    )
    for kind in ("table", "html"):
        done = subprocess.run(
            [sys.executable, "-c", program, "report", str(tmp_path), "--format", kind],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
