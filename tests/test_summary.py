"""Finished runs as rows: which belong together, what they are called, their statistics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import finished, three_seeds
from scipy import stats

from aae_runner.report import seeds_table
from aae_runner.series import _called, against, read_series
from aae_runner.summary import interval, rows


def test_a_row_holds_the_statistics_of_its_seeds_as_fractions(tmp_path: Path) -> None:
    row, other = rows(three_seeds(tmp_path))
    low, high = stats.t.interval(0.95, 2, np.mean([0.01, 0.02, 0.04]), stats.sem([0.01, 0.02, 0.04]))
    assert low < 0  # which no rate can be
    assert (row.metric, row.seeds, row.source) == ("test/error_rate", 3, "Table 2")  # the paper's one first
    assert [row.mean, row.deviation, row.low, row.high] == pytest.approx(
        [0.07 / 3, np.std([0.01, 0.02, 0.04], ddof=1), 0, high]
    )
    assert row.difference == pytest.approx(0.07 / 3 - 0.019)
    assert (other.reference, other.source, other.difference) == (0.9, "a fresh prior sample", None)


def test_against_another_series_the_difference_is_that_of_pairs_of_one_seed_with_its_standard_error(
    tmp_path: Path,
) -> None:
    three_seeds(tmp_path)  # 0.01, 0.02, 0.04
    for seed, rate in ((1, 0.03), (2, 0.06), (7, 0.5)):
        finished(tmp_path / "digits" / "basic" / "abcdefabcd" / f"seed{seed}", rate)
    finished(tmp_path / "digits" / "basic" / "no_seed_in" / "seed9", 0.5)
    base, other = against(read_series([tmp_path])[0], "0123456789")
    first, row = rows([base])[0], rows([other])[0]
    assert first.source == "Table 2"  # beside the paper, as ever
    assert (row.seeds, row.source) == (3, f"{base.name}, 5 epochs, 2 common seeds")
    assert row.reference == pytest.approx(0.03)
    pairs = [0.03 - 0.02, 0.06 - 0.04]
    assert (row.difference, row.difference_error) == pytest.approx((np.mean(pairs), stats.sem(pairs)))
    assert "+1.50 ± 0.50 points" in seeds_table([base, other])


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_interval_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n).tolist()
    assert interval(values) == pytest.approx(
        stats.t.interval(0.95, n - 1, np.mean(values), stats.sem(values))
    )


def test_the_interval_of_a_share_stays_within_0_and_1_and_that_of_another_metric_does_not(
    tmp_path: Path,
) -> None:
    for seed, value in enumerate((0.9, 1.0)):
        metrics = {"test/probe_accuracy": value, "test/squared_mmd": value}
        finished(tmp_path / f"seed{seed}", **metrics)
    found = {row.metric: row for row in rows(read_series([tmp_path])[0])}
    share, other = found["test/probe_accuracy"], found["test/squared_mmd"]
    assert share.low == pytest.approx(other.low)
    assert share.high == 1
    assert other.high is not None
    assert other.high > 1


@pytest.mark.parametrize(
    "named", [".", "digits", "digits/basic", "digits/basic/123", "digits/basic/123/seed0"]
)
def test_a_series_is_called_by_data_set_variant_and_identity_whichever_of_its_folders_is_named(
    named: str, tmp_path: Path
) -> None:
    finished(tmp_path / "digits" / "basic" / "123" / "seed0")
    ((series,), _) = read_series([tmp_path / named])
    assert series.folder == "digits/basic/123"


def test_one_seed_has_no_deviation_and_no_interval(tmp_path: Path) -> None:
    finished(tmp_path / "mnist" / "vae" / "0123456789" / "seed0")
    series, _ = read_series([tmp_path])
    assert {(row.deviation, row.low, row.high) for row in rows(series)} == {(None, None, None)}
    assert "interval" not in seeds_table(series)


def test_a_run_counts_once_however_it_is_named_and_not_when_moved_aside(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    experiment = tmp_path / "digits" / "basic" / "0123456789"
    finished(experiment / "seed0~1")
    again = [tmp_path, experiment, experiment / "seed0"]
    (series,), damaged = read_series(again)
    assert [run.name for run in series.runs] == ["seed0", "seed1", "seed2"]
    assert not damaged
    (alone,), _ = read_series(again[2:])
    assert len(alone.runs) == 1


def test_what_the_results_say_puts_runs_together_and_apart_not_where_they_lie(tmp_path: Path) -> None:
    finished(tmp_path / "in" / "first", 0.01, identity="a", config={"seed": 0, "reference": None, "batch": 1})
    finished(tmp_path / "in" / "second", 0.5, identity="b", config={"seed": 1, "reference": None, "batch": 2})
    finished(tmp_path / "in" / "third", 0.5, identity="b", config={"seed": 1, "reference": None, "batch": 2},
             data={"fingerprint": "other", "note": ""})  # fmt: skip
    finished(tmp_path / "x" / "fourth", 0.03, identity="a", config={"seed": 7, "reference": None, "batch": 1})
    series, left_out = read_series([tmp_path])
    assert not left_out
    assert [(one.folder, one.settings, [run.name for run in one.runs]) for one in series] == [
        ("in/a", "batch=1", ["seed0", "seed7"]),
        ("in/b", "batch=2", ["seed1"]),
        ("in/b", "batch=2", ["seed1"]),
    ]
    assert [row.mean for row in rows(series) if row.metric == "test/error_rate"] == [0.02, 0.5, 0.5]


def test_a_series_is_called_by_no_path_of_the_machine(tmp_path: Path) -> None:
    finished(tmp_path / "seed0")
    (copy, deep) = tmp_path / "1" / "one", Path("/srv/run")
    finished(copy, identity="0123456789")
    for root, name in ((tmp_path / "seed0", None), (copy, "1/0123456789"), (copy.parent, "1/0123456789")):
        ((series,), _) = read_series([root])
        assert not series.folder.startswith("/")
        assert name in (None, series.folder)
    run = read_series([copy])[0][0].runs[0]
    for identity, called in (("srv", "srv"), ("0123456789", "srv/0123456789")):
        assert _called(replace(run, folder=deep, identity=identity), Path("/srv/run")) == called


def test_seeds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 2):
        finished(tmp_path / f"seed{seed}")
    (series,), _ = read_series([tmp_path])
    assert [run.name for run in series.runs] == ["seed2", "seed10"]
