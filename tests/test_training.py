"""Runs from command to results: what is left behind, resuming, stopping, failing."""

import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Command, trained
from matplotlib.image import imread
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aae_runner import checkpoint
from aae_runner.series import read_series

SHORT = (*TINY, "schedule.epochs=2", "evaluators.error_rate.every=1", "logging.every=5")


def only_run(root: Path) -> Path:
    (folder,) = (root / "runs").glob("*/*/*/seed0")
    return folder


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was trained."""
    return trained(tmp_path_factory.mktemp("once"), *SHORT)


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    """The folder of that run, where it is a test's own."""
    shutil.copytree(once / "runs", tmp_path / "runs")
    return only_run(tmp_path)


def test_a_run_says_nothing_on_stderr_and_leaves_what_it_promises(command: Command, tmp_path: Path) -> None:
    assert command(*SHORT) == (0, "")
    finished = only_run(tmp_path)
    assert finished.parts[-4:-2] == ("digits", "semi_supervised")
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    drawn = "confusion", "reconstructions", "samples", "latent_map", "style_grid"
    figures = {f"figures/{name}.png" for name in drawn}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    projector = {f"00020/codes/{name}" for name in ("metadata.tsv", "sprite.png", "tensors.tsv")}
    projector.add("projector_config.pbtxt")
    expected = figures | hydra | projector | {"metrics.jsonl", "results.json", "model.safetensors", "run.log"}
    assert expected <= names
    rest = names - expected - {".lock", "checkpoints/step_000000020.pt"}
    assert [name.startswith("events.out.tfevents.") for name in rest] == [True]


def test_results_hold_metrics_config_data_and_environment(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert 0 <= results["test/error_rate"] <= 1
    assert 0 < results["test/nearest_neighbor_error_rate"] < 0.2
    assert results["config"]["schedule"]["epochs"] == 2
    assert results["identity"] == finished.parent.name
    assert len(results["data"]["fingerprint"]) == 64
    assert results["environment"]["torch"] == torch.__version__


def test_the_record_has_the_stable_tags_with_step_and_epoch(finished: Path) -> None:
    found = rows(finished)
    tags = set().union(*found)
    phase = "regularization"
    terms = {
        f"loss/{phase}/{role}_{head}"
        for role in ("discriminator", "generator")
        for head in ("style", "label")
    }
    rates = {f"lr/{phase}/discriminator", f"lr/{phase}/generator", "lr/reconstruction", "lr/classification"}
    metrics = {"valid/error_rate", "test/error_rate", "test/reconstruction_error"}
    assert {"step", "epoch", "loss/reconstruction", "loss/classification"} | terms | rates | metrics <= tags
    assert [row["step"] for row in found] == [5, 10, 10, 15, 20, 20, 20]
    assert all(row["epoch"] == row["step"] / 10 for row in found)


def test_tensorboard_shows_what_the_record_says_with_pictures_text_hparams_and_layout(finished: Path) -> None:
    board = EventAccumulator(str(finished), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    tags = board.Tags()
    recorded = {tag for row in rows(finished) for tag in row} - {"step", "epoch"}
    assert set(tags["scalars"]) == recorded | {"speed/images_per_second"}
    for tag in recorded:
        expected = [row[tag] for row in rows(finished) if tag in row]
        assert [event.value for event in board.Scalars(tag)] == pytest.approx(expected)
    assert {"test/style_grid", "test/latent_map", "test/samples", "test/reconstructions"} <= set(
        tags["images"]
    )
    for name in ("confusion", "latent_map"):
        file, shown = finished / "figures" / f"{name}.png", board.Images(f"test/{name}")[-1]
        pixels = imread(io.BytesIO(shown.encoded_image_string))
        assert pixels.std() > 0
        assert np.array_equal(imread(file)[..., :3], pixels)
    assert "config/text_summary" in tags["tensors"]
    plugins = board.summary_metadata
    assert any("hparams" in tag for tag in plugins)
    assert any("custom_scalars" in tag for tag in plugins)


def test_the_weights_load_without_executing_anything_and_carry_their_config(finished: Path) -> None:
    path = finished / "model.safetensors"
    assert {"encoder.1.weight", "heads.label.linear.0.weight"} <= set(load_file(path))
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["config"])["heads"]["style"]["size"] == 10


def test_the_same_command_shows_a_finished_run_and_changes_nothing(finished: Path, command: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert command(*SHORT)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_finished_run_that_is_asked_for_fewer_epochs_says_how_many_it_has(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for epochs, said in (
        (1, "finished, with 2 epochs, more than the 1 that are asked for;"),
        (2, "finished, with 2 epochs;"),
    ):
        trained(tmp_path, *SHORT, f"schedule.epochs={epochs}")
        assert said in capfd.readouterr().out


def test_the_line_of_an_epoch_has_what_was_measured_at_it_and_nothing_older(
    command: Command, tmp_path: Path
) -> None:
    assert command(*SHORT, "schedule.epochs=4", "evaluators.error_rate.every=2")[0] == 0
    lines = re.findall(r"epoch (\d)/4 (.*)", (only_run(tmp_path) / "run.log").read_text())
    assert [(epoch, "valid/error_rate" in line) for epoch, line in lines] == [
        ("1", False), ("2", True), ("3", False), ("4", True),
    ]  # fmt: skip
    assert all("reconstruction" in line for _, line in lines)


def test_more_epochs_continue_the_same_run(finished: Path, command: Command) -> None:
    command(*SHORT, "schedule.epochs=3")
    assert json.loads((finished / "results.json").read_text())["epochs"] == 3
    assert [row["step"] for row in rows(finished)] == [5, 10, 10, 15, 20, 20, 25, 30, 30, 30]


def test_a_run_whose_rates_fell_over_fewer_epochs_before_is_told_from_one_that_had_all_from_the_first(
    tmp_path: Path,
) -> None:
    keys = *TINY, "variant=baseline", "evaluators={}"

    def lengths(*arguments: str) -> list[tuple[int, ...]]:
        ((series, *more), _) = read_series([trained(tmp_path, *keys, *arguments) / "runs"])
        return [run.lengths for one in (series, *more) for run in one.runs]

    assert lengths("schedule.epochs=1") == [()]
    assert lengths("schedule.epochs=2") == [(1,)]
    assert lengths("schedule.epochs=2", "seed=1") == [(1,), ()]
    continued, fresh = read_series([tmp_path])[0]
    assert "continued after its rates had fallen over 1 epoch" in continued.runs[0].note
    assert fresh.runs[0].note == ""
    constant = *keys, "schedule.decay=null", "runs=constant"
    trained(tmp_path, *constant, "schedule.epochs=1")
    trained(tmp_path, *constant, "schedule.epochs=2")
    ((one,), _) = read_series([tmp_path / "constant"])
    assert (one.runs[0].epochs, one.runs[0].lengths) == (2, ())


def test_a_finished_run_that_lost_its_weights_is_concluded_again(finished: Path, command: Command) -> None:
    before = (finished / "model.safetensors").read_bytes()
    (finished / "model.safetensors").unlink()
    assert command(*SHORT)[0] == 0
    assert (finished / "model.safetensors").read_bytes() == before


def test_fewer_epochs_than_an_unfinished_run_has_are_refused(finished: Path, command: Command) -> None:
    (finished / "results.json").unlink()
    status, said = command(*SHORT, "schedule.epochs=1")
    assert status == 2
    assert "already at epoch 2" in said
    assert not (finished / "results.json").exists()


def test_resume_false_starts_afresh_and_keeps_the_old_folder(finished: Path, command: Command) -> None:
    old = (finished / "results.json").read_text()
    assert command(*SHORT, "resume=false")[0] == 0
    assert (finished.with_name("seed0~1") / "results.json").read_text() == old
    assert rows(finished) == rows(finished.with_name("seed0~1"))  # a run is a function of config and seed


def test_a_repeated_sweep_runs_only_what_is_missing(finished: Path, command: Command) -> None:
    before = (finished / "results.json").stat().st_mtime_ns
    assert command("-m", *SHORT, "seed=0,1")[0] == 0
    assert (finished / "results.json").stat().st_mtime_ns == before
    assert (finished.with_name("seed1") / "results.json").exists()


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """The real command in a process of its own, reporting each step at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "aae_runner", *TINY, "schedule.epochs=400", "logging.every=1",
         "evaluators.error_rate.every=1", *arguments],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_epoch(process: subprocess.Popen[str], number: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"epoch {number}/"):
            return
    raise AssertionError(process.communicate()[1])


def test_a_signal_ends_a_long_look_at_the_test_split_which_the_same_command_repeats(tmp_path: Path) -> None:
    endless = "evaluators.log_likelihood.samples=1000000000"
    process = start(
        tmp_path, "+evaluator@evaluators.log_likelihood=log_likelihood", endless, "schedule.epochs=1"
    )
    wait_for_epoch(process, 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "the same command" in said
    assert "Traceback" not in said
    state, _ = checkpoint.load(only_run(tmp_path) / "checkpoints")
    assert state is not None
    assert state["record"]["step"] == 10
    assert not (only_run(tmp_path) / "results.json").exists()


def digest(state: dict[str, object]) -> dict[str, torch.Tensor]:
    """All tensors of a state, by path."""
    found: dict[str, torch.Tensor] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, torch.Tensor):
            found[path] = node
        elif isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{path}/{name}")
        elif isinstance(node, list):
            walk(dict(enumerate(node)), path)

    walk(state, "")
    return found


@pytest.mark.parametrize("variant", ["basic", "semi_supervised"])
def test_20_steps_are_10_and_10_more_after_a_resume_bit_by_bit(
    tmp_path: Path, command: Command, variant: str
) -> None:
    flat = (*TINY, f"variant={variant}", "schedule.decay=null", "logging.every=3")
    command(*flat, "schedule.epochs=2", "runs=straight")
    command(*flat, "schedule.epochs=1", "runs=parted")
    command(*flat, "schedule.epochs=2", "runs=parted")
    (straight,) = (tmp_path / "straight").glob("*/*/*/seed0")
    (parted,) = (tmp_path / "parted").glob("*/*/*/seed0")
    one, other = (checkpoint.load(folder / "checkpoints")[0] for folder in (straight, parted))
    assert one is not None
    assert other is not None
    first, second = digest(one), digest(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(first) > 20
    assert (straight / "metrics.jsonl").read_bytes() == (parted / "metrics.jsonl").read_bytes()


def test_a_second_process_in_the_same_run_folder_is_refused(finished: Path, command: Command) -> None:
    with (finished / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = command(*SHORT, "schedule.epochs=3")
    assert status == 7
    assert str(os.getpid()) in said


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing_of_it(
    command: Command, tmp_path: Path
) -> None:
    late = ("logging.every=1000", "evaluators.latent_map.every=1")  # looked at before the first report
    status, said = command(*SHORT, *late, "schedule.phases.reconstruction.optimizer.lr=1e30")
    assert status == 5
    assert re.search(
        r"loss/\w+(/\w+)? is (nan|inf) at step \d+ \((before: [\d.]+|it never was finite); lr/", said
    )
    assert "Traceback" not in said
    assert not list(only_run(tmp_path).glob("checkpoints/*.pt"))
    assert "NumericalError" in (only_run(tmp_path) / "run.log").read_text()


def test_changed_data_are_noticed_on_resume(finished: Path, command: Command) -> None:
    folder = finished / "checkpoints"
    state, _ = checkpoint.load(folder)
    assert state is not None
    checkpoint.save(folder, 20, {**state, "data": "another"})
    status, said = command(*SHORT, "schedule.epochs=3")
    assert status == 4
    assert "resume=false" in said


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")])
@pytest.mark.parametrize("place", ["file/runs", "/proc/runs"])
def test_an_unwritable_place_for_runs_is_a_sentence_with_status_6(
    command: Command, tmp_path: Path, place: str, sweep: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    status, said = command(*sweep, *SHORT, f"runs={place}")
    assert status == 6
    assert "runs=FOLDER" in said
    assert "Traceback" not in said


def spoil(content: bytes, how: str) -> bytes:
    if how.startswith("cut"):
        return content[: int(len(content) * float(how.split()[1]) / 100)]
    place = {"head": 3, "middle": len(content) // 2, "tail": len(content) - 2}[how.split()[1]]
    if how.startswith("zeros"):
        return content[:place] + bytes(100) + content[place + 100 :]
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "how", ["cut 0", "cut 10", "cut 50", "cut 99.9", "flip head", "flip middle", "flip tail", "zeros middle"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step, "tensor": torch.arange(1000.0)})
    newest = tmp_path / "step_000000002.pt"
    newest.write_bytes(spoil(newest.read_bytes(), how))
    state, problems = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert str(newest) in problems[0]
    checkpoint.save(tmp_path, 3, {"step": 3})
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step_000000001.pt", "step_000000003.pt"]


def test_when_no_checkpoint_is_sound_the_run_stops_rather_than_starting_anew(
    finished: Path, command: Command
) -> None:
    for path in (finished / "checkpoints").glob("*.pt"):
        path.write_bytes(spoil(path.read_bytes(), "flip middle"))
    status, said = command(*SHORT, "schedule.epochs=3")
    assert status == 4
    assert "resume=false" in said


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000002.pt", "step_000000003.pt"]
