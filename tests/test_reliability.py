"""What may happen to a run, and what it then keeps; docs/reliability.md lists it."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, trained

from aae_runner import checkpoint
from aae_runner.disk import locked
from aae_runner.errors import CheckpointError

Looks = tuple[str, ...]


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Looks:
    """A command: four epochs of ten steps, a look after each, a state every four steps, and the killer."""
    own = tmp_path_factory.mktemp("own")
    (own / "evaluator").mkdir()
    (own / "evaluator" / "killer.yaml").write_text("# Mine\n_target_: suicidal.Killer\nevery: 1\n")
    (own / "suicidal.py").write_text(Path(__file__).with_name("killer.py").read_text())
    return (
        "--config-dir", str(own), "+evaluator@evaluators.killer=killer", "schedule.epochs=4",
        "logging.every=3", "checkpoint.steps=4", "+schedule.phases.classification.every=3", *TINY,
    )  # fmt: skip


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The real command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "aae_runner", *arguments],
        cwd=folder, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def only_run(root: Path) -> Path:
    (folder,) = (root / "runs").glob("*/*/*/seed0")
    return folder


def ending(root: Path) -> dict[str, str]:
    """SHA-256 of what a run ends with: weights, rows, and every tensor and number of its last state."""
    run = only_run(root)
    state, problems = checkpoint.load(run / "checkpoints")
    assert state is not None
    assert not problems
    digests = {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "metrics.jsonl")
    }
    flat: list[bytes] = []

    def walk(node: object) -> None:
        if isinstance(node, torch.Tensor):
            flat.append(node.numpy().tobytes())
        elif isinstance(node, dict):
            for key, value in node.items():
                flat.append(repr(key).encode())
                walk(value)
        elif isinstance(node, list | tuple):
            walk(dict(enumerate(node)))
        else:
            flat.append(repr(node).encode())

    walk({name: value for name, value in state.items() if name != "seconds"})
    return {**digests, "state": hashlib.sha256(b"".join(flat)).hexdigest()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, looks: Looks) -> Path:
    """Where nothing happened to the run."""
    return trained(tmp_path_factory.mktemp("whole"), *looks)


@pytest.fixture(scope="module")
def uninterrupted(whole: Path) -> dict[str, str]:
    """How the run ends when nothing happens to it."""
    return ending(whole)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory, looks: Looks) -> Path:
    """Where the run was asked for an epoch, and ended."""
    return trained(tmp_path_factory.mktemp("one_epoch"), *looks, "schedule.epochs=1")


MOMENTS = {
    "before the first state is saved": ("look:1", 1000),
    "while a state is written": ("write:3", 4),
    "during evaluation": ("look:3", 4),
}


@pytest.mark.parametrize("when", MOMENTS)
def test_a_run_killed_at_any_moment_ends_like_one_never_killed(
    tmp_path: Path, looks: Looks, command: Command, uninterrupted: dict[str, str], when: str
) -> None:
    moment, steps = MOMENTS[when]
    process = start(tmp_path, *looks, f"checkpoint.steps={steps}", KILLER=moment)
    _, said = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL, said
    assert not (only_run(tmp_path) / "results.json").exists()
    assert command(*looks)[0] == 0
    assert ending(tmp_path) == uninterrupted
    assert not list(tmp_path.rglob(".*.tmp"))


INTERRUPTED = {
    "of the validation split": ("term:2", "Stopped at epoch 2.00 of 4", 20),
    "of the test split": ("term:5", "Stopped while looking at the test split", 40),
}


@pytest.mark.parametrize("which", INTERRUPTED)
def test_a_signal_during_a_look_saves_the_state_and_the_look_is_taken_again(
    tmp_path: Path, looks: Looks, command: Command, uninterrupted: dict[str, str], which: str
) -> None:
    moment, says, step = INTERRUPTED[which]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILLER", moment)
        status, said = command(*looks, "checkpoint.steps=null")
    assert (status, says in said) == (128 + signal.SIGTERM, True)
    saved = [path.name for path in (only_run(tmp_path) / "checkpoints").iterdir()]
    assert saved == [f"step_{step:09d}.pt"]
    assert command(*looks)[0] == 0
    assert ending(tmp_path) == uninterrupted


def test_a_signal_during_training_ends_the_step_saves_and_leaves_with_its_status(
    tmp_path: Path, looks: Looks, command: Command
) -> None:
    longer = (*looks, "logging.progress=false", "schedule.epochs=12")  # than it takes to send the signals
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process = start(tmp_path, *longer)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch "):
                break
        process.send_signal(number)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 128 + number, said
        assert "Traceback" not in said
    assert command(*longer)[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert ending(tmp_path) == ending(trained(elsewhere, *longer))


def test_a_launchers_handler_of_a_warning_is_called_once_the_state_is_saved(
    tmp_path: Path, looks: Looks, command: Command, uninterrupted: dict[str, str]
) -> None:
    seen: list[str] = []

    def queue_again(number: int, frame: object) -> None:
        seen.extend(path.name for path in (only_run(tmp_path) / "checkpoints").iterdir())
        sys.exit(75)

    before = signal.signal(signal.SIGUSR2, queue_again)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KILLER", "usr2:2")
            status, _ = command("-m", *looks, "checkpoint.steps=null")
        assert signal.getsignal(signal.SIGUSR2) == queue_again
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (status, seen) == (75, ["step_000000020.pt"])
    assert command("-m", *looks)[0] == 0
    assert ending(tmp_path) == uninterrupted


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: as on a full disk, writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_last_state_stays_and_the_run_continues_when_there_is_room(
    tmp_path: Path, looks: Looks, command: Command, uninterrupted: dict[str, str]
) -> None:
    assert command(*looks, "schedule.epochs=1", "schedule.decay=null", "runs=other")[0] == 0
    (saved,) = [path.stat().st_size for path in (tmp_path / "other").rglob("step_000000010.pt")]
    with largest_file(saved - 1000):
        status, said = command(*looks, "checkpoint.steps=25")
    assert status == 6
    for part in ("step_000000025.pt: cannot be written", "MiB were needed", "MiB free", "runs=FOLDER"):
        assert part in said
    assert not list((only_run(tmp_path) / "checkpoints").iterdir())
    assert command(*looks)[0] == 0
    assert ending(tmp_path) == uninterrupted


def test_when_tensorboard_cannot_write_that_costs_a_warning_and_not_the_run(
    tmp_path: Path, looks: Looks, command: Command
) -> None:
    pictures = "evaluators.latent_map.every=1", "evaluators.style_grid.every=1"
    with largest_file(600_000):  # more than any figure, less than all together
        status, _ = command(*looks, *pictures, "schedule.epochs=8", "evaluators.killer=null")
    run = only_run(tmp_path)
    assert status == 0
    assert (run / "results.json").exists()
    assert (run / "run.log").read_text().count("TensorBoard") == 1


def test_on_a_file_system_without_locks_a_warning_says_so_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(logging.getLogger("aae_runner"), "propagate", True)
    with locked(tmp_path):
        assert "no locks are known here" in caplog.text


CONTENDER = """
import sys
from pathlib import Path
from aae_runner.disk import locked
from aae_runner.errors import RunInUseError
print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(Path(sys.argv[1])):
        print("holds", flush=True)
        sys.stdin.readline()
except RunInUseError as error:
    print(error, flush=True)
"""


def test_of_two_processes_at_once_one_holds_the_folder_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    def contender() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path / "run")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    for _ in range(20):
        pair = [contender(), contender()]
        assert [line(one) for one in pair] == ["ready", "ready"]
        for one in pair:
            assert one.stdin is not None
            one.stdin.write("\n")
        answers = [line(one) for one in pair]
        (holder,) = [one for one, answer in zip(pair, answers, strict=True) if answer == "holds"]
        (refusal,) = [answer for answer in answers if answer != "holds"]
        assert "trains in this run folder" in refusal
        holder.kill()
        for one in pair:
            one.communicate()


def test_a_state_computed_otherwise_is_not_continued(
    tmp_path: Path, looks: Looks, command: Command, one_epoch: Path
) -> None:
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    status, said = command(*looks, "engine=compile")
    assert status == 4
    assert "engine eager (now compile)" in said
    assert "Go back" in said
    assert "resume=false" in said
    folder = only_run(tmp_path) / "checkpoints"
    state, _ = checkpoint.load(folder)
    assert state is not None
    checkpoint.save(folder, 10, {**state, "arithmetic": {**state["arithmetic"], "torch": "1.0"}})
    status, said = command(*looks)
    assert (status, f"torch 1.0 (now {torch.__version__})" in said) == (4, True)


def test_missing_rows_are_noticed(tmp_path: Path, looks: Looks, command: Command, one_epoch: Path) -> None:
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    rows = only_run(tmp_path) / "metrics.jsonl"
    rows.write_bytes(rows.read_bytes()[:40])
    status, said = command(*looks)
    assert (status, "rows are missing" in said) == (4, True)


def test_a_damaged_record_of_a_finished_run_is_concluded_again(
    tmp_path: Path, looks: Looks, command: Command, whole: Path
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    results = only_run(tmp_path) / "results.json"
    results.write_bytes(results.read_bytes()[:100])
    assert command(*looks)[0] == 0
    assert json.loads(results.read_text())["epochs"] == 4


def test_a_pickle_is_not_loaded_even_where_torch_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    checkpoint.save(tmp_path, 1, {"step": Malicious()})
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "executed").exists()


OWN = """
import os, sys
from aae_runner.priors import Gaussian

class Raises(Gaussian):
    def sample(self, n, labels=None):
        raise ZeroDivisionError("mine")

class Exits(Gaussian):
    def sample(self, n, labels=None):
        sys.exit(3)
"""


def test_a_sweep_tells_which_jobs_failed_and_where_to_look_and_repeated_runs_only_those(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "faulty_priors.py").write_text(OWN)
    jobs = {
        "one": "seed: 1",
        "raises": "prior: {_target_: faulty_priors.Raises}",
        "exits": "prior: {_target_: faulty_priors.Exits}",
        "diverges": "schedule: {phases: {reconstruction: {optimizer: {lr: 1e30}}}}",
        "two": "seed: 2",
    }
    (tmp_path / "experiment").mkdir()
    for name, content in jobs.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
    sweep = "-m", "--config-dir", ".", f"experiment={','.join(jobs)}", "schedule.epochs=1", *TINY
    status, said = command(*sweep)
    assert status == 1
    assert "3 of 5 jobs failed" in said
    outcomes = sorted((tmp_path / "runs" / "sweeps").glob("*/jobs.jsonl"))[0].read_text().splitlines()
    ended = [json.loads(line) for line in outcomes]
    assert [one["status"] for one in ended] == [0, 1, 1, 5, 0]
    for one, cause in zip(
        ended[1:4], ("ZeroDivisionError: mine", "sys.exit(3)", "is nan at step"), strict=True
    ):
        assert cause in one["said"]
        assert "Traceback" in Path(one["where"]).read_text()
        assert cause.split(" ")[0] in Path(one["where"]).read_text()
    assert len(list(tmp_path.glob("runs/digits/*/*/seed*/results.json"))) == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/digits/*/*/seed*/results.json")}
    (tmp_path / "experiment" / "diverges.yaml").write_text("# @package _global_\nseed: 3\n")
    status, said = command(*sweep)
    assert (status, "2 of 5 jobs failed" in said) == (1, True)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(tmp_path.glob("runs/digits/*/*/seed*/results.json"))) == 3


def test_odd_but_ordinary_surroundings(tmp_path: Path) -> None:
    folder = tmp_path / "Läufe mit Leerzeichen"
    folder.mkdir()
    command = f"'{sys.executable}' -m aae_runner schedule.epochs=3 {' '.join(TINY)} | head -n 1"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, text=True, capture_output=True, check=False,
        env=environment | {"LC_ALL": "C", "HOME": "/proc/nowhere"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\n") == 1
    assert (only_run(folder) / "results.json").exists()
