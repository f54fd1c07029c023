"""The loop, and what it leaves in the run folder."""

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch

import aae_runner
from aae_runner import checkpoint
from aae_runner.build import Builder
from aae_runner.config import CONSTANT_KEYS, Config, identity, tree
from aae_runner.errors import CheckpointError, ConfigError, Interrupted
from aae_runner.experiment import Experiment, prepare
from aae_runner.recorder import Recorder

log = logging.getLogger("aae_runner")


def train(config: Config, folder: Path, build: Builder, texts: Mapping[str, str]) -> dict[str, Any]:
    """Runs an experiment to its end in a run folder, or takes it up where it stopped.

    Args:
        config: the settled config.
        folder: of the run.
        build: makes components.
        texts: files to put into the run folder before training: Hydra's record of the config.

    Returns:
        The content of results.json.

    Raises:
        AAEError: see its subclasses.
        Interrupted: a signal asked to stop; the state is saved.
    """
    if config.resume and (results := _finished(folder, config.schedule.epochs)):
        log.info(
            "This run is finished, with %d epochs; its data were not read again. resume=false starts afresh.",
            results["epochs"],
        )
        return results
    experiment = prepare(config, build)
    if not config.resume:
        _move_aside(folder)
    with checkpoint.locked(folder), _log_file(folder), _stop_signal() as stop:
        for name, text in texts.items():
            with checkpoint.written(folder / name) as file:
                file.write(text.encode())
        log.info("%s", experiment.arithmetic)
        return _train(experiment, folder, stop, texts.get(".hydra/config.yaml", ""))


def _train(experiment: Experiment, folder: Path, stop: list[int], config_yaml: str) -> dict[str, Any]:
    config, data = experiment.config, experiment.data
    saved = _resume(experiment, folder)
    step = int(saved["record"]["step"]) if saved else 0
    if step > experiment.total_steps:
        raise ConfigError(
            f"schedule.epochs={config.schedule.epochs}: {folder} is already at epoch "
            f"{step / data.steps_per_epoch:g}. Ask for as many or more, or start afresh with resume=false."
        )
    last_save = time.monotonic()
    started = last_save - (saved["seconds"] if saved else 0.0)
    with Recorder(
        folder,
        every=config.logging.every,
        total=experiment.total_steps,
        steps_per_epoch=data.steps_per_epoch,
        images_per_step=min(config.schedule.batch, len(data.train)),
        progress=config.logging.progress,
        saved=saved["record"] if saved else None,
    ) as recorder:
        recorder.describe(config_yaml, _layout(experiment))
        while step < experiment.total_steps:
            recorder.add(experiment.step(step))
            step += 1
            recorder.tick(step, experiment.learning_rates())
            if step % data.steps_per_epoch == 0:
                recorder.check(step)
                findings = experiment.look("valid", step // data.steps_per_epoch)
                recorder.epoch(step, recorder.findings(step, "valid", findings, keep=False))
            due = time.monotonic() - last_save >= 60 * config.checkpoint.minutes
            if stop or due or step == experiment.total_steps:
                state = {
                    **experiment.state(),
                    "data": data.fingerprint,
                    "record": recorder.state(step),
                    "seconds": time.monotonic() - started,
                }
                checkpoint.save(folder / "checkpoints", step, state)
                last_save = time.monotonic()
            if stop:
                how = "" if config.resume else ", without resume=false,"
                epochs = f"{step / data.steps_per_epoch:.2f} of {config.schedule.epochs}"
                raise Interrupted(f"Stopped at epoch {epochs}; the same command{how} continues.", stop[0])
        with _on_signal(_leave):  # all is saved: nothing is lost by stopping wherever it is
            findings = experiment.look("test", None)
        metrics = recorder.findings(step, "test", findings, keep=True)
        recorder.conclude(_settings(config), metrics)
    results = {
        **metrics,
        "identity": identity(config),
        "epochs": config.schedule.epochs,
        "config": tree(config),
        "data": {"fingerprint": data.fingerprint, "note": data.note},
        "environment": _environment(data.device, time.monotonic() - started),
    }
    weights = {name: tensor.contiguous() for name, tensor in experiment.model.state_dict().items()}
    content = safetensors.torch.save(weights, metadata={"config": json.dumps(tree(config))})
    for name, written in {
        "model.safetensors": content,
        "results.json": json.dumps(results, indent=2).encode(),
    }.items():
        with checkpoint.written(folder / name) as file:
            file.write(written)
    return results


def _resume(experiment: Experiment, folder: Path) -> dict[str, Any] | None:
    saved, problems = checkpoint.load(folder / "checkpoints")
    for problem in problems:
        log.warning("%s The state before it is used.", problem)
    if saved:
        if saved["data"] != experiment.data.fingerprint:
            raise CheckpointError(
                f"{folder}: the data are not those that this run was trained on. Bring back the old ones, or "
                "start afresh with resume=false."
            )
        experiment.load(saved)
        log.info("Resumed at epoch %g.", saved["record"]["step"] / experiment.data.steps_per_epoch)
    return saved


def _finished(folder: Path, epochs: int) -> dict[str, Any] | None:
    path = folder / "results.json"
    if not path.is_file():
        return None
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results if results["epochs"] >= epochs else None


def _move_aside(folder: Path) -> None:
    if folder.exists():
        with checkpoint.locked(folder):
            number = 1
            while (aside := folder.with_name(f"{folder.name}~{number}")).exists():
                number += 1
            folder.rename(aside)
        log.info("The earlier run is kept in %s.", aside)


@contextlib.contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    except Exception:
        record = logging.LogRecord(log.name, logging.ERROR, "", 0, "The run failed.", (), sys.exc_info())
        handler.handle(record)  # the traceback is for the file alone
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM; a second one ends the program at once."""
    received: list[int] = []

    def remember(number: int, frame: Any) -> None:
        received.append(number)  # and no more: a handler may interrupt a write, and must not write itself
        signal.signal(number, signal.SIG_DFL)

    with _on_signal(remember):
        yield received


def _leave(number: int, frame: Any) -> NoReturn:
    raise Interrupted("Stopped while looking at the test split; the same command looks again.", number)


@contextlib.contextmanager
def _on_signal(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Calls the handler at SIGINT and SIGTERM."""
    try:
        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread (a notebook's, a launcher's): signals are not ours
        yield
        return
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _layout(experiment: Experiment) -> dict[str, dict[str, list[Any]]]:
    """Each head's discriminator beside its generator, in TensorBoard's custom scalars."""
    charts = {}
    for phase in experiment.phases:
        for head in getattr(phase.phase, "discriminators", {}):
            tags = [f"loss/{phase.name}/{role}_{head}" for role in ("discriminator", "generator")]
            charts[f"{head}: discriminator and generator"] = ["Multiline", tags]
    return {"Adversaries": charts} if charts else {}


def _settings(config: Config) -> dict[str, bool | str | float]:
    """What decides the metrics, as one flat dictionary of plain values."""
    flat: dict[str, bool | str | float] = {"seed": config.seed, "schedule.epochs": config.schedule.epochs}
    left_out = {*CONSTANT_KEYS, "evaluators", "prior", "data.shape", "data.classes"}  # priors holds the prior

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        elif not {key, key.split(".", 1)[0]} & left_out:
            flat[key] = node if isinstance(node, bool | str | int | float) else json.dumps(node)

    walk(tree(config), "")
    return flat


def _environment(device: torch.device, seconds: float) -> dict[str, Any]:
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "aae_runner": aae_runner.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type}: {name}",
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "seconds": round(seconds, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """Of the checkout that the program runs from; None for an installed package."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
