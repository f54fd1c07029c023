"""The loop, and what it leaves in the run folder."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from aae_runner import checkpoint
from aae_runner.build import Builder
from aae_runner.config import CONSTANT_KEYS, Config, identity, tree
from aae_runner.disk import locked, tidy, unwritable, write
from aae_runner.environment import environment
from aae_runner.errors import AAEError, CheckpointError, ConfigError, Interrupted
from aae_runner.experiment import Experiment, prepare
from aae_runner.recorder import Recorder
from aae_runner.resume import Saver, take_up
from aae_runner.signals import Stop, stop_signals
from aae_runner.weights import FILE
from aae_runner.words import counted

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
        Interrupted: a signal asked to stop; nothing is lost.
    """
    with stop_signals() as stop:
        if config.resume and (results := _finished(folder, config.schedule.epochs)):
            asked, more = config.schedule.epochs, results["epochs"] > config.schedule.epochs
            log.info(
                "This run is finished, with %s%s; its data were not read again. resume=false starts afresh.",
                counted(results["epochs"], "epoch"),
                f", more than the {asked} that are asked for" if more else "",
            )
            return results
        with stop.interrupts("Stopped before the first step; the same command starts again."):
            begun = config.resume and checkpoint.exists(folder / "checkpoints")
            experiment = prepare(config, build, begun=begun)
        if not config.resume:
            _move_aside(folder)
        with locked(folder), _log_file(folder):
            tidy(folder)
            for name, text in texts.items():
                write(folder / name, text.encode())
            log.info("%s", experiment.arithmetic)
            if experiment.start:
                log.info("%s", experiment.start)
            return _train(experiment, folder, stop, texts.get(".hydra/config.yaml", ""))


def _train(experiment: Experiment, folder: Path, stop: Stop, config_yaml: str) -> dict[str, Any]:
    config, data = experiment.config, experiment.data
    where = environment(data.device, experiment.engine.name)  # now: the checkout may change meanwhile
    saved = take_up(experiment, folder)
    step, looked = (saved["record"]["step"], saved["looked"]) if saved else (0, 0)
    start = saved.get("start") if saved else experiment.start and experiment.start._asdict()
    if config.weights is not None and start is None:  # another process moved them meanwhile
        raise CheckpointError(f"{folder}: its saved states are gone. The same command starts again.")
    if step > experiment.total_steps:
        raise ConfigError(
            f"schedule.epochs={config.schedule.epochs}: {folder} is already at epoch "
            f"{step / data.steps_per_epoch:g}. Ask for as many or more, or start afresh with resume=false."
        )

    def stopped(step: int) -> str:
        how = "" if config.resume else ", without resume=false,"
        epochs = f"{step / data.steps_per_epoch:.2f} of {config.schedule.epochs}"
        return f"Stopped at epoch {epochs}; the same command{how} continues."

    with Recorder(
        folder,
        every=config.logging.every,
        total=experiment.total_steps,
        steps_per_epoch=data.steps_per_epoch,
        images_per_step=min(config.schedule.batch, len(data.train)),
        progress=config.logging.progress,
        learning_rates=experiment.learning_rates,
        saved=saved["record"] if saved else None,
    ) as recorder:
        saver = Saver(experiment, recorder, folder / "checkpoints", saved, start)
        valid: dict[str, float] = {}
        recorder.describe(config_yaml, _layout(experiment))
        while True:
            if step % data.steps_per_epoch == 0 and step > looked:
                recorder.check()
                try:
                    with stop.interrupts(stopped(step)):
                        findings = experiment.look("valid", step // data.steps_per_epoch)
                except Interrupted:
                    saver.save(step, looked)
                    raise
                valid = recorder.findings(step, "valid", findings, keep=False)
                recorder.epoch(step, valid)
                looked = step
            if step == experiment.total_steps:
                break
            recorder.add(step, experiment.step(step))
            step += 1
            recorder.tick(step)
            if stop.received or step == experiment.total_steps or saver.due(step):
                saver.save(step, looked)
            if stop.received:
                raise Interrupted(stopped(step), stop.received)
        with stop.interrupts("Stopped while looking at the test split; the same command looks again."):
            findings = experiment.look("test", None)
        metrics = recorder.findings(step, "test", findings, keep=True)
        recorder.conclude(_settings(config), metrics)
    log.info("%s", saver.cost)
    results = {
        **valid,
        **metrics,
        "identity": identity(config),
        "epochs": config.schedule.epochs,
        "lengths": saver.lengths,
        "config": tree(config),
        "data": {"fingerprint": data.fingerprint, "note": data.note},
        "start": start,
        "environment": {
            **where,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(saver.seconds, 1),
        },
    }
    weights = {name: tensor.contiguous() for name, tensor in experiment.model.state_dict().items()}
    content = safetensors.torch.save(weights, metadata={"config": json.dumps(tree(config))})
    write(folder / FILE, content)
    write(folder / "results.json", json.dumps(results, indent=2).encode())
    return results


def _finished(folder: Path, epochs: int) -> dict[str, Any] | None:
    path = folder / "results.json"
    if not (path.is_file() and (folder / FILE).is_file()):
        return None
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results if results["epochs"] >= epochs else None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: damaged (%s). The run is concluded again from its last state.", path, error)
        return None


def _move_aside(folder: Path) -> None:
    if folder.exists():
        with locked(folder):
            number = 1
            while (aside := folder.with_name(f"{folder.name}~{number}")).exists():
                number += 1
            folder.rename(aside)
        log.info("The earlier run is kept in %s.", aside)


class _LogFile(logging.FileHandler):
    """run.log; when it cannot be written, that costs one warning, not the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        log.removeHandler(self)
        log.warning("%s cannot be written (%s); the run goes on.", self.baseFilename, sys.exc_info()[1])


@contextlib.contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    path = folder / "run.log"
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    except (Exception, SystemExit) as error:  # sys.exit in somebody's class would end a whole sweep
        record = logging.LogRecord(log.name, logging.ERROR, "", 0, "The run failed.", (), sys.exc_info())
        handler.handle(record)  # the traceback is for the file alone
        if isinstance(error, AAEError):
            raise
        said = (
            f"sys.exit({error.code}) was called"
            if isinstance(error, SystemExit)
            else (f"{type(error).__name__}: {error}")
        )
        raise AAEError(f"{said}. The traceback is in {path}.") from error
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


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
