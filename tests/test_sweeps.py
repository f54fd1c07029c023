"""Hydra's plugins with this program: parallel jobs, a search, a cluster's launcher."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command

from aae_runner.environment import device_of_job
from aae_runner.sweep import Outcome, read_outcomes

SHORT = (*TINY, "schedule.epochs=1", "evaluators={}")
LAUNCHERS = "joblib", "submitit_local"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_run_in_processes_of_their_own_and_their_outcomes_are_told_together(
    tmp_path: Path, launcher: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "aae_runner", "-m", f"hydra/launcher={launcher}", *SHORT,
         "schedule.phases.reconstruction.optimizer.lr=1e-3,1e30"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "1 of 2 jobs failed" in ended.stderr
    (record,) = (tmp_path / "runs" / "sweeps").glob("*/jobs.jsonl")
    assert sorted(json.loads(line)["status"] for line in record.read_text().splitlines()) == [0, 5]
    (results,) = (tmp_path / "runs").glob("digits/*/*/seed0/results.json")
    table = ended.stdout.partition("The sweep's jobs")[2]
    assert str(results.parent.relative_to(tmp_path)) in table  # not folded, for it goes to no terminal


def test_a_key_of_only_some_choices_of_a_sweep_is_judged_by_each_job(
    command: Command, svhn_root: Path
) -> None:
    parts = "data=svhn,digits", f"data.root={svhn_root}", "data.checksums=false", "data.labels=20"
    status, said = command("-m", *parts, *SHORT)
    assert status == 1
    assert "1 of 2 jobs failed" in said
    assert "data.root is not a key of Digits" in said
    assert len(list(Path("runs/svhn").glob("*/*/seed0/results.json"))) == 1


def test_a_key_of_every_swept_variant_is_theirs_though_not_the_defaults(command: Command) -> None:
    swept = "variant=dim_reduction,dim_reduction_unsupervised", "evaluators={}", "schedule=adam"
    assert command("-m", *swept, "phases.head_distance.threshold=8", *SHORT)[0] == 0


def test_a_record_that_a_full_disk_has_torn_keeps_its_other_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 1):
        Outcome(number, ["seed=0"]).append_to(tmp_path)
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write('{"job": 2, "over')
    Outcome(4, []).append_to(tmp_path)
    assert [one.job for one in read_outcomes(tmp_path)] == [0, 1, 4]
    Outcome(3, []).append_to(tmp_path / "jobs.jsonl")  # no folder
    assert "The closing table lacks job 3." in capsys.readouterr().err


def test_a_glob_of_experiments_takes_the_keys_of_the_data_that_they_choose(
    command: Command, svhn_root: Path
) -> None:
    keys = f"data.root={svhn_root}", "data.checksums=false", "data.labels=20", "schedule.batch=50"
    status, _ = command("-m", "experiment=glob(quick_*svhn*)", *keys, *SHORT)
    assert status == 0
    assert len(list(Path("runs/svhn").glob("*/*/seed0/results.json"))) == 2


@pytest.mark.filterwarnings("ignore")  # of Optuna's, about itself
def test_a_search_without_an_objective_is_refused(command: Command) -> None:
    status, said = command("-m", "search=learning_rates", "objective=null", "hydra.sweeper.n_trials=1")
    assert (status, "objective=null: a search needs one" in said) == (1, True)
    assert not list(Path("runs").rglob("run.log"))


SEARCH = """
# @package _global_
# Mine
defaults:
  - learning_rates
  - override /hydra/sweeper/sampler: grid

objective: valid/error_rate
hydra:
  sweeper:
    params:
      schedule.phases.reconstruction.optimizer.lr: choice(1e-3, 1e30)
      schedule.phases.regularization.discriminator.lr: choice(1e-3)
      schedule.phases.regularization.generator.lr: choice(1e-3)
      schedule.phases.classification.optimizer.lr: choice(1e-3)
"""


@pytest.mark.filterwarnings("ignore")  # of Optuna's, about itself
def test_a_search_keeps_its_study_and_takes_a_run_that_diverges_for_infinitely_bad(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.yaml").write_text(SEARCH)
    arguments = "-m", "--config-dir", str(tmp_path), "search=mine", *TINY, "schedule.epochs=1"
    assert command(*arguments)[0] == 0
    (found,) = (tmp_path / "runs" / "sweeps").glob("*/optimization_results.yaml")
    assert "optimizer.lr: 0.001" in found.read_text()
    (results,) = (tmp_path / "runs").glob("digits/*/*/seed0/results.json")
    best = json.loads(results.read_text())["valid/error_rate"]
    assert f"best_value: {best}" in found.read_text()
    assert command(*arguments)[0] == 0  # finished runs are not trained again, their trials are added
    with contextlib.closing(sqlite3.connect(tmp_path / "runs" / "search.db")) as study:
        assert study.execute("select count(*) from studies").fetchone() == (1,)
        assert study.execute("select count(*) from trials").fetchone() == (4,)


@pytest.mark.filterwarnings("ignore")
def test_a_study_is_that_of_one_configuration_wherever_it_is_computed(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.yaml").write_text(SEARCH.replace("choice(1e-3, 1e30)", "choice(1e-3)"))
    first = "-m", "--config-dir", str(tmp_path), "search=mine", "schedule.epochs=1", "evaluators.samples=null"
    for more, studies in (
        (TINY, 1),
        (("device=cpu", "logging.every=9", *reversed(TINY), "hydra.sweeper.n_trials=1"), 1),
        ((*TINY, "data.labels=50"), 2),
        ((*TINY, "seed=1"), 3),
    ):
        assert command(*first, *more)[0] == 0
        with contextlib.closing(sqlite3.connect(tmp_path / "runs" / "search.db")) as study:
            names = [name for (name,) in study.execute("select study_name from studies")]
        assert len(names) == studies
    assert all(name.startswith("digits_semi_supervised_mine_") for name in names)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("classes", "states"), [("1${hydra:job.num}", ["COMPLETE", "COMPLETE"]), ("11", ["FAIL"])]
)
def test_a_search_goes_on_past_a_config_that_cannot_be_unless_its_first_trial_has_one(
    tmp_path: Path, command: Command, classes: str, states: list[str]
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.yaml").write_text(SEARCH.replace("1e30", "2e-3"))
    arguments = "-m", "--config-dir", str(tmp_path), "search=mine", *TINY, "schedule.epochs=1"
    found = command(*arguments, f"phases.classification.classes={classes}")
    assert (found[0], "must be categorical, of size 11 or more" in found[1]) == (1, True)
    with contextlib.closing(sqlite3.connect(tmp_path / "runs" / "search.db")) as study:
        ended = [state for (state,) in study.execute("select state from trials order by number")]
    assert ended == states


def test_an_objective_that_the_run_does_not_find_is_a_sentence(command: Command) -> None:
    status, said = command(*SHORT, "objective=valid/eror_rate")
    assert status == 2
    assert "objective=valid/eror_rate: the run found no such metric" in said


def test_the_last_epoch_is_looked_at_whatever_the_cadence(command: Command, tmp_path: Path) -> None:
    command(*TINY, "schedule.epochs=3", "evaluators.error_rate.every=2")
    (rows,) = (tmp_path / "runs").glob("digits/*/*/seed0/metrics.jsonl")
    looks = [row for row in map(json.loads, rows.read_text().splitlines()) if "valid/error_rate" in row]
    assert [row["epoch"] for row in looks] == [2, 3]
    results = json.loads(rows.with_name("results.json").read_text())
    assert results["valid/error_rate"] == looks[-1]["valid/error_rate"]


def test_the_jobs_of_a_sweep_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of_job(number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of_job(1) == "auto"
