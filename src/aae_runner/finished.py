"""A finished run, opened again. Nothing in its folder is executed or believed: its config is checked anew."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from aae_runner.build import Builder
from aae_runner.config import Config, check
from aae_runner.errors import CheckpointError, ConfigError
from aae_runner.evaluators import Snapshot
from aae_runner.experiment import Experiment, prepare


@dataclass(frozen=True)
class Finished:
    """A run that came to its end: what it found, and its model."""

    results: dict[str, Any]
    """The content of results.json."""
    experiment: Experiment
    """All its parts, with the final weights."""

    def snapshot(self, split: str) -> Snapshot:
        """The model, in evaluation mode, to be looked at with a split: `train`, `valid` or `test`."""
        parts = self.experiment
        parts.model.eval()
        return Snapshot(parts.model, parts.priors, parts.data, split)


def open_run(folder: Path, build: Builder, data_root: Path | None = None) -> Finished:
    """Opens the folder of a finished run.

    Args:
        folder: of the run, with results.json and model.safetensors.
        build: makes components; the run's own `trusted` is ignored.
        data_root: where its data lie now; None: where they lay.

    Raises:
        ConfigError: the folder holds no finished run, or one that this program cannot build.
        CheckpointError: the weights are damaged, or not those of the model.
        DataError: the data are missing, damaged or others.
    """
    for name in ("results.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: holds no {name}, so no finished run. `aae report` lists those.")
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        config: Config = check(Config, results["config"], "")
        fingerprint = results["data"]["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'results.json'}: damaged ({error}).") from error
    if data_root is not None:
        config = replace(config, data={**config.data, "root": str(data_root)})
    experiment = prepare(config, build)
    if experiment.data.fingerprint != fingerprint:
        raise CheckpointError(f"{folder}: the data are not those that this run was trained on.")
    path = folder / "model.safetensors"
    try:
        experiment.model.load_state_dict(safetensors.torch.load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged, or of another model ({reason}).") from error
    return Finished(results, experiment)
