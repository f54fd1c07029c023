"""Runs that start with the weights of an earlier one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, Run, composed, experiment

from aae_runner.config import identity
from aae_runner.errors import CheckpointError, ConfigError

PLANE = "variant=dim_reduction_unsupervised", "heads.label.size=16"


def test_a_run_starts_with_the_parts_that_fit_and_draws_the_others_as_it_would_have(run: Run) -> None:
    earlier = run("clustering")
    alone = experiment(*PLANE).model.state_dict()
    begun = experiment(*PLANE, f"weights={earlier.folder}")
    given = earlier.model.state_dict()
    for name, tensor in begun.model.state_dict().items():
        from_earlier = name.startswith(("encoder.", "heads.label."))  # z has 2 dimensions here, and 5 there
        assert torch.equal(tensor, given[name] if from_earlier else alone[name]), name
    said = begun.remarks[-1]
    assert f"Started with encoder, heads.label of {earlier.folder}/model.safetensors (sha256 " in said
    assert said.endswith("; heads.style, join, decoder drawn anew.")


def test_of_several_seeds_runs_that_of_the_same_seed_is_taken_and_both_have_one_identity(
    run: Run, tmp_path: Path
) -> None:
    for seed in (0, 3):
        shutil.copytree(run("clustering").folder, tmp_path / f"seed{seed}")
    for seed in (0, 3):
        said = experiment(*PLANE, f"weights={tmp_path}", f"seed={seed}").remarks[-1]
        assert f"{tmp_path}/seed{seed}/model.safetensors" in said
    first, second = (composed(*PLANE, f"weights={tmp_path}", f"seed={seed}") for seed in (0, 3))
    assert identity(first) == identity(second) != identity(composed(*PLANE))


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


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("nowhere", "neither it nor its folder seed0 is a finished run (no model.safetensors)"),
        ("{run}", "no part of {run}/model.safetensors fits this model (encoder, heads.style, heads.label, "),
    ],
)
def test_weights_that_are_of_no_use_end_in_a_sentence(run: Run, weights: str, says: str) -> None:
    folder = str(run("clustering").folder)
    with pytest.raises(ConfigError) as error:
        experiment(
            "network.encoder.width=17", "network.decoder.width=17", f"weights={weights.format(run=folder)}"
        )
    assert says.format(run=folder) in str(error.value)


def test_a_file_of_weights_that_was_cut_off_is_not_started_with(tmp_path: Path, run: Run) -> None:
    content = (run("clustering").folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        experiment(*PLANE, f"weights={tmp_path}")
