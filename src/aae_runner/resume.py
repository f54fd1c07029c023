"""When the state of a run is saved, and how it is taken up again."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aae_runner import checkpoint
from aae_runner.environment import arithmetic, differences
from aae_runner.errors import CheckpointError
from aae_runner.experiment import Experiment
from aae_runner.recorder import Recorder

log = logging.getLogger("aae_runner")

SAVING = 0.02
"""Share of the time that saving may take, where `checkpoint.minutes` would let it take more."""


class Saver:
    """When the state is saved, and what that costs.

    Args:
        experiment: whose state it is.
        recorder: whose position in the record belongs to it.
        folder: of the checkpoints.
        saved: the state that the run was resumed from.
        start: whose weights the run started with, if it did not draw them.

    Attributes:
        lengths: in epochs, that the run was to have before, where its rates fell by them.
    """

    def __init__(
        self,
        experiment: Experiment,
        recorder: Recorder,
        folder: Path,
        saved: Mapping[str, Any] | None,
        start: dict[str, Any] | None,
    ) -> None:
        self._experiment, self._recorder, self._folder, self._begin = experiment, recorder, folder, start
        self._cadence = experiment.config.checkpoint
        self._last = self._start = time.monotonic()
        self._before: float = saved["seconds"] if saved else 0.0
        self._costs: list[float] = []
        self.lengths = _lengths(experiment, saved) if saved else []

    @property
    def seconds(self) -> float:
        """That the run took so far, those before an interruption included."""
        return self._before + time.monotonic() - self._start

    @property
    def cost(self) -> str:
        """What saving took, in a sentence."""
        spent = sum(self._costs)
        share = spent / max(time.monotonic() - self._start, 1e-9)
        return f"Saving took {spent:.2f} s, {share:.1%} of the time (saved states: {len(self._costs)})."

    def due(self, step: int) -> bool:
        """Whether it is time, after `step` steps."""
        if self._cadence.steps is not None and step % self._cadence.steps == 0:
            return True
        wait = 60 * self._cadence.minutes
        if self._costs:  # of a large model on a slow disk, less often than asked
            wait = max(wait, self._costs[-1] / SAVING)
        return time.monotonic() - self._last >= wait

    def save(self, step: int, looked: int) -> None:
        """Saves the state after `step` steps; the last look at the validation split was after `looked`.

        Raises:
            NumericalError: it is not finite, and must not be saved.
            DiskError: it cannot be written; the one before is intact.
        """
        began = time.monotonic()
        experiment = self._experiment
        record = self._recorder.state(step)  # first: it names the loss, where one is not finite
        state = {
            **experiment.state(),
            "data": experiment.data.fingerprint,
            "arithmetic": arithmetic(experiment.data.device, experiment.engine.name),
            "threads": torch.get_num_threads(),
            "start": self._begin,
            "epochs": experiment.config.schedule.epochs,
            "lengths": self.lengths,
            "record": record,
            "looked": looked,
            "seconds": self.seconds,
        }
        checkpoint.save(self._folder, step, state)
        self._last = time.monotonic()
        self._costs.append(self._last - began)


def _lengths(experiment: Experiment, saved: Mapping[str, Any]) -> list[int]:
    lengths = [*saved.get("lengths", [])]  # a state of an earlier version has none
    before, now = saved.get("epochs"), experiment.config.schedule.epochs
    falling = any(phase.stretches for phase in experiment.phases)
    return [*lengths, before] if before not in (None, now) and falling else lengths


def take_up(experiment: Experiment, folder: Path) -> dict[str, Any] | None:
    """Loads the newest sound state of a run folder into an experiment; None where there is none.

    Raises:
        CheckpointError: none is sound, or it was computed on other data or in another way.
    """
    saved, problems = checkpoint.load(folder / "checkpoints")
    for problem in problems:
        log.warning("%s The state before it is used.", problem)
    if saved:
        if saved["data"] != experiment.data.fingerprint:
            raise CheckpointError(
                f"{folder}: the data are not those that this run was trained on. Bring back the old ones, or "
                "start afresh with resume=false."
            )
        if others := differences(
            saved["arithmetic"], arithmetic(experiment.data.device, experiment.engine.name)
        ):
            raise CheckpointError(
                f"{folder}: this run was computed with {others}, and would not end as it would have. Go back "
                "to that, or start afresh with resume=false."
            )
        if saved["threads"] != torch.get_num_threads():
            log.warning("Resumed with another number of threads: the last digits may differ from those of a "
                        "run that was never stopped.")  # fmt: skip
        experiment.load(saved)
        log.info("Resumed at epoch %g.", saved["record"]["step"] / experiment.data.steps_per_epoch)
    return saved
