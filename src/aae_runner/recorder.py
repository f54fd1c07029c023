"""Metrics out: metrics.jsonl (the record of truth), TensorBoard, pictures, and the person at the terminal."""

import contextlib
import io
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from rich import get_console
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from aae_runner.disk import unwritable, write
from aae_runner.errors import CheckpointError, NumericalError
from aae_runner.evaluators import Findings, Projection
from aae_runner.report import readable

log = logging.getLogger("aae_runner")
console = get_console()


class Recorder:
    """Keeps losses on the device and reads them once a report.

    Args:
        folder: of the run.
        every: steps between two rows of losses.
        total: steps of the whole run.
        steps_per_epoch: to tell epochs.
        images_per_step: to tell images per second.
        progress: whether to draw a bar; null: where there is a terminal.
        learning_rates: the current ones, by scalar tag.
        saved: what `state` returned, or None at the start of a run.

    Raises:
        CheckpointError: rows that belong to the saved state are missing.
        DiskError: metrics.jsonl cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        total: int,
        steps_per_epoch: int,
        images_per_step: int,
        progress: bool | None,
        learning_rates: Callable[[], Mapping[str, float]],
        saved: Mapping[str, Any] | None,
    ) -> None:
        self._folder, self._every, self._steps_per_epoch = folder, every, steps_per_epoch
        self._images_per_step, self._total = images_per_step, total
        self._learning_rates = learning_rates
        self._unread: list[tuple[int, Mapping[str, Tensor]]] = []
        self._values: dict[str, list[float]] = dict(saved["values"]) if saved else {}
        self._last: dict[str, float] = dict(saved["last"]) if saved else {}
        step, size = (saved["step"], saved["size"]) if saved else (0, 0)
        self._path = folder / "metrics.jsonl"
        try:
            with self._path.open("ab") as file:
                if file.tell() < size:
                    raise CheckpointError(
                        f"{self._path}: rows are missing that the saved state counts on. Bring the file "
                        "back, or start afresh with resume=false (the old folder is kept)."
                    )
                file.truncate(size)  # rows written after the state was saved are written again
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._board: SummaryWriter | None = None
        self._hook, threading.excepthook = threading.excepthook, self._of_thread
        with self._harmless():
            self._board = SummaryWriter(str(folder), purge_step=step + 1 if saved else None)
        self._clock, self._clock_step, self._rate = time.monotonic(), step, math.nan
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("starting", total=total, completed=step)
        drawn = console.is_terminal if progress is None else progress
        self._live = Live(get_renderable=self._draw, console=console, transient=True) if drawn else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self._file.close()
        if self._board is not None:
            with self._harmless():
                self._board.close()
        threading.excepthook = self._hook

    def state(self, step: int) -> dict[str, Any]:
        """What resuming needs to continue the record without a row missing or doubled: plain numbers.

        Raises:
            NumericalError: a loss since the last report is not finite, so this state must not be saved.
            DiskError: rows cannot be written.
        """
        self.check()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())  # the state must not outlive the rows that it counts on
        except OSError as error:
            raise unwritable(self._path, error) from error
        return {
            "step": step,
            "size": self._path.stat().st_size,
            "values": self._values,
            "last": self._last,
        }

    def check(self) -> None:
        """Reads the losses of the steps since they were last read.

        Raises:
            NumericalError: one of them is not finite.
        """
        losses = [(step, tag, value) for step, terms in self._unread for tag, value in terms.items()]
        self._unread = []
        if not losses:
            return
        read = torch.stack([value for _, _, value in losses]).tolist()  # the one transfer of a report
        for (step, tag, _), value in zip(losses, read, strict=True):
            known = self._values.setdefault(tag, [])
            if not math.isfinite(value):
                raise NumericalError(self._not_finite(step, tag, value))
            known.append(value)
        self._last |= self._means()

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Losses of the step that follows `step` others, still on the device."""
        self._unread.append((step, terms))

    def tick(self, step: int) -> None:
        """After `step` steps: writes the mean losses since the last report, if it is time."""
        if step % self._every:
            return
        self.check()
        self._row(step, {**self._means(), **self._learning_rates()})
        self._values = {}
        seconds = time.monotonic() - self._clock
        self._rate = (step - self._clock_step) * self._images_per_step / max(seconds, 1e-9)
        self._clock, self._clock_step = time.monotonic(), step
        self._scalars(step, {"speed/images_per_second": self._rate})
        self._show(step)

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Says how an epoch ended, with what was measured at it: a plain line where there is no bar."""
        self._last |= metrics
        self._show(step)
        if self._live is None:
            left = (self._total - step) * self._images_per_step / self._rate if self._rate > 0 else math.nan
            end = f"{left:.0f} s left" if math.isfinite(left) else ""
            log.info("epoch %g/%g  %s  %s", step / self._steps_per_epoch, self._total / self._steps_per_epoch,
                     self._summary(metrics), end)  # fmt: skip

    def findings(self, step: int, split: str, findings: Findings, *, keep: bool) -> dict[str, float]:
        """Records what evaluators found; returns the metrics by scalar tag.

        Args:
            step: number of finished steps.
            split: what they looked at.
            findings: metrics and figures by name.
            keep: write the figures as files too.
        """
        metrics = {f"{split}/{name}": value for name, value in findings.items() if isinstance(value, float)}
        if metrics:
            self._row(step, metrics)
        for name, found in findings.items():
            if isinstance(found, Projection):
                self._project(step, name, found)
        for name, figure in findings.items():
            if not isinstance(figure, Figure):
                continue
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            if self._board is not None:
                with self._harmless():
                    self._board.add_image(f"{split}/{name}", pixels, step, dataformats="HWC")
            if keep:
                png = io.BytesIO()
                imsave(png, pixels, format="png", dpi=figure.dpi)
                write(self._folder / "figures" / f"{name}.png", png.getvalue())
        self._clock, self._clock_step = time.monotonic(), step  # looking does not count as training
        return metrics

    def _project(self, step: int, name: str, found: Projection) -> None:
        """Into TensorBoard's projector, which wants square pictures."""
        if self._board is None:
            return
        folder = self._folder / f"{step:05d}"  # as the writer names it; it complains where there is one
        with self._harmless():
            shutil.rmtree(folder, ignore_errors=True)
            height, width = found.pictures.shape[2:]
            pictures = found.pictures if height == width else None
            self._board.add_embedding(found.codes, found.labels, pictures, step, name)

    def describe(self, config_yaml: str, layout: Mapping[str, Mapping[str, list[Any]]]) -> None:
        """Puts the config and the arrangement of the curves into TensorBoard."""
        if self._board is not None:
            with self._harmless():
                self._board.add_text("config", "\n".join(f"    {line}" for line in config_yaml.splitlines()))
                self._board.add_custom_scalars(layout)

    def conclude(self, settings: Mapping[str, bool | str | float], metrics: Mapping[str, float]) -> None:
        """One hparams entry, in the run's own event file: what was set, what came out."""
        if self._board is not None and metrics:
            with self._harmless():
                for summary in hparams(dict(settings), dict(metrics)):
                    self._board._get_file_writer().add_summary(summary)

    def _means(self) -> dict[str, float]:
        return {tag: math.fsum(values) / len(values) for tag, values in self._values.items() if values}

    def _not_finite(self, step: int, tag: str, value: float) -> str:
        phase = tag.split("/")[1]
        known = self._values[tag]
        last = known[-1] if known else self._last.get(tag)
        before = "it never was finite" if last is None else f"before: {last:.6g}"
        rates = ", ".join(
            f"{name}={rate:.3g}"
            for name, rate in self._learning_rates().items()
            if name.split("/")[1] == phase
        )
        return (
            f"{tag} is {value} at step {step} ({before}; {rates}). Nothing of it is saved. Lower the "
            f"learning rates of {phase}, or of a phase that runs before it (schedule.phases)."
        )

    def _row(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step, "epoch": step / self._steps_per_epoch, **values}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._scalars(step, values)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            with self._harmless():
                for tag, value in values.items():
                    self._board.add_scalar(tag, value, step)

    def _show(self, step: int) -> None:
        done, total = step / self._steps_per_epoch, self._total / self._steps_per_epoch
        self._bar.update(self._task, completed=step, description=f"epoch {done:.1f}/{total:g}")

    def _draw(self) -> Group:
        return Group(self._bar, Text(self._summary(self._last), style="dim"))

    def _summary(self, metrics: Mapping[str, float]) -> str:
        shown = [
            f"{tag.split('/')[-1]} {value:.3g}" for tag, value in self._last.items() if tag[:5] == "loss/"
        ]
        shown += [f"{tag} {readable(tag, value)}" for tag, value in metrics.items() if tag[:6] == "valid/"]
        if math.isfinite(self._rate):
            shown.append(f"{self._rate:,.0f} images/s")
        return "  ".join(shown)

    def _of_thread(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread, and hands its error on at the next call: a warning is enough."""
        if not isinstance(failed.exc_value, OSError) or "AsyncWriter" not in type(failed.thread).__name__:
            self._hook(failed)

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """TensorBoard is for looking: when it fails, that costs one warning, not the run."""
        try:
            yield
        except OSError as error:
            log.warning("TensorBoard's file cannot be written (%s); the run goes on without it.", error)
            self._board = None
