"""Runs that start with the weights of an earlier one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, Run, composed, experiment, trained

from aae_runner.config import identity
from aae_runner.errors import CheckpointError, ConfigError
from aae_runner.series import read_series

PLANE = "variant=dim_reduction_unsupervised", "heads.label.size=16"


def test_a_run_starts_with_the_parts_that_fit_and_draws_the_others_as_it_would_have(run: Run) -> None:
    earlier = run("clustering")
    alone = experiment(*PLANE).model.state_dict()
    begun = experiment(*PLANE, f"weights={earlier.folder}")
    given = earlier.model.state_dict()
    for name, tensor in begun.model.state_dict().items():
        from_earlier = name.startswith(("encoder.", "heads.label."))  # z has 2 dimensions here, and 5 there
        assert torch.equal(tensor, given[name] if from_earlier else alone[name]), name
    said = str(begun.start)
    assert f"Started with encoder, heads.label of {earlier.folder}/model.safetensors (sha256 " in said
    assert said.endswith("; heads.style, join, decoder drawn anew.")


def test_of_several_seeds_runs_that_of_the_same_seed_is_taken_and_both_have_one_identity(
    run: Run, tmp_path: Path
) -> None:
    for seed, variant in ((0, "clustering"), (3, "semi_supervised")):
        shutil.copytree(run(variant).folder, tmp_path / f"seed{seed}")
    for seed, variant in ((0, "clustering"), (3, "semi_supervised")):
        begun = experiment(*PLANE, f"weights={tmp_path}", f"seed={seed}")
        given = run(variant).model.encoder.state_dict()
        assert all(
            torch.equal(tensor, given[key]) for key, tensor in begun.model.encoder.state_dict().items()
        )
    first, second = (
        composed(*PLANE, f"weights={tmp_path}{end}", f"seed={seed}") for seed, end in ((0, "/"), (3, ""))
    )
    assert identity(first) == identity(second) != identity(composed(*PLANE))


def test_labels_of_another_subset_that_the_earlier_run_was_shown_are_told(run: Run) -> None:
    weights = f"weights={run('semi_supervised').folder}"
    same, other = (str(experiment(weights, f"seed={seed}").start) for seed in (0, 1))
    assert "other labels" not in same
    assert "It has learned from other labels too: data.labels=100 data.label_seed=0." in other
    assert "other labels" in str(experiment(weights, "data.train_on=train+valid").start)


def test_labels_that_a_run_before_the_earlier_one_was_shown_are_told_and_reported(tmp_path: Path) -> None:
    def run(name: str, *keys: str) -> Path:
        trained(tmp_path, *TINY, "schedule.epochs=1", "evaluators={}", f"runs={name}", *keys)
        (folder,) = (tmp_path / name).rglob("seed0")
        return folder

    first = run("first", "data.label_seed=7")
    second = run("second", f"weights={first}")
    third = run("third", f"weights={second}")
    ((series,), _) = read_series([third])
    told = "started with weights that have learned from data.labels=100 data.label_seed=7"
    assert series.runs[0].note == told
    fourth = experiment(f"weights={third}", "data.label_seed=7").start
    assert fourth is not None
    assert fourth.labels == "data.labels=100 data.label_seed=0"


def test_where_all_labels_are_used_no_seed_makes_them_others(tmp_path: Path) -> None:
    all_labels = "variant=baseline", "data.labels=all"
    trained(tmp_path, *TINY, *all_labels, "schedule.epochs=1", "evaluators={}")
    (earlier,) = tmp_path.glob("runs/digits/baseline/*/seed0")
    begun = experiment(*all_labels, f"weights={earlier}", "seed=1")
    assert begun.start is not None
    assert begun.start.labels == ""


def test_clusters_of_a_run_that_merges_none_are_taken_by_one_that_merges_them(run: Run) -> None:
    merging = "+phase@phases.merging=merging", "phases.merging.keep=5"
    begun = experiment("variant=clustering", *merging, f"weights={run('clustering').folder}")
    given = run("clustering").model.state_dict()
    for name, tensor in begun.model.state_dict().items():
        assert name == "heads.label.members" or torch.equal(tensor, given[name]), name
    begun.step(0)
    assert len(begun.model.classes("label")) == 5


def test_where_all_heads_are_the_earlier_runs_so_is_the_decoder(run: Run) -> None:
    begun = experiment("variant=clustering", f"weights={run('clustering').folder}")
    given = run("clustering").model.state_dict()
    assert all(torch.equal(tensor, given[key]) for key, tensor in begun.model.state_dict().items())
    assert begun.start is not None
    assert begun.start.anew == []
    other = "heads.style.size=6", "heads.label.size=15"  # of the same sum, so that the decoder has its shape
    assert "; heads.style, heads.label, decoder drawn anew." in str(
        experiment("variant=clustering", f"weights={run('clustering').folder}", *other).start
    )


def test_a_fixed_scale_of_cluster_heads_is_that_of_the_config_whatever_the_earlier_runs_was(
    tmp_path: Path,
) -> None:
    ten = "variant=dim_reduction", "heads.style.size=10", "phases.head_distance=null"
    trained(tmp_path, *TINY, *ten, "schedule.epochs=1", "evaluators={}", "join.scale=10")
    (earlier,) = tmp_path.glob("runs/digits/dim_reduction/*/seed0")
    for scale, anew in ((3, ["join", "decoder"]), (10, [])):
        begun = experiment(*ten, f"join.scale={scale}", f"weights={earlier}")
        assert begun.start is not None
        assert begun.start.anew == anew
        assert begun.model.state_dict()["join.heads"].equal(scale * torch.eye(10))


def test_training_goes_on_from_what_the_earlier_run_had_learned_and_is_resumed_without_it(
    command: Command,
) -> None:
    def error(runs: str, *more: str) -> float:
        keys = "schedule.epochs=4", "data.labels=all"
        assert command(f"runs={runs}", *TINY, *keys, *more)[0] == 0
        (path,) = Path(runs).rglob("results.json")
        return float(json.loads(path.read_text())["test/error_rate"])

    alone = error("alone")
    (earlier,) = Path("alone").rglob("seed0")
    assert error("begun", f"weights={earlier.parent}") < alone
    shutil.rmtree("alone")
    error("begun", f"weights={earlier.parent}", "schedule.epochs=5")
    (log,) = Path("begun").rglob("run.log")
    assert "Resumed at epoch 4." in log.read_text()
    assert log.read_text().count("Started with encoder") == 1
    (path,) = Path("begun").rglob("results.json")
    assert json.loads(path.read_text())["start"]["file"] == str(earlier / "model.safetensors")


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("nowhere", "neither it nor its folder seed0 is a finished run (no model.safetensors)"),
        ("{run}", "the encoder of {run}/model.safetensors is not of this network"),
    ],
)
def test_weights_that_are_of_no_use_end_in_a_sentence(run: Run, weights: str, says: str) -> None:
    folder = str(run("clustering").folder)
    with pytest.raises(ConfigError) as error:
        experiment("network.encoder.depth=1", f"weights={weights.format(run=folder)}")  # whose layer fits
    assert says.format(run=folder) in str(error.value)


def test_a_file_of_weights_that_was_cut_off_is_not_started_with(tmp_path: Path, run: Run) -> None:
    content = (run("clustering").folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        experiment(*PLANE, f"weights={tmp_path}")
