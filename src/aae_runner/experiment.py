"""All parts of a run, built once from its config."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from aae_runner.build import Builder
from aae_runner.config import Component, Config, Decay, Facts, Timing, check, nearest, part
from aae_runner.data import Data, derive_seed
from aae_runner.engine import Engine, Objective, Phase, Scheduled, Update, choose_engine
from aae_runner.environment import give_back_memory, use_own_cores
from aae_runner.errors import CheckpointError, ConfigError, NumericalError
from aae_runner.evaluators import Evaluator, Findings, Snapshot
from aae_runner.graphs import Terms
from aae_runner.model import Model
from aae_runner.parts import build_parts
from aae_runner.precision import autocast, choose_precision, exact_products
from aae_runner.priors import Prior
from aae_runner.weights import Start, start_with
from aae_runner.words import counted

UNFIT = "torch.optim.LBFGS", "torch.optim.SparseAdam"
"""Optimizers that compute the loss again, or take sparse gradients alone."""

CALIBRATION = 10_000
"""Clean training images on which batch norm's statistics are measured before an evaluation."""


@dataclass(frozen=True)
class Experiment:
    """All parts of a run, built and checked; nothing is written yet."""

    config: Config
    data: Data
    model: Model
    priors: Mapping[str, Prior]
    phases: list[Scheduled]
    evaluators: Mapping[str, Evaluator]
    engine: Engine
    """How its updates are computed."""
    arithmetic: str
    """How it computes, for the log."""
    start: Start | None
    """Whose weights it starts with; None: they were drawn, or will be those of a saved state."""

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.config.schedule.epochs * self.data.steps_per_epoch

    def step(self, step: int) -> Terms:
        """Runs the phases that are active in a step; returns their losses by scalar tag."""
        # randomness is a function of (seed, step): there is no generator's state to save
        torch.manual_seed(derive_seed("step", self.config.seed, step))
        active = [phase for phase in self.phases if phase.active(step)]
        for phase in self.phases:  # all, so that the rates in the record are a function of the step as well
            phase.set_step(step)
        for phase in active:
            phase.phase.prepare(functools.partial(self.data.first, phase.phase.stream))
        active = [phase for phase in active if phase.updates]
        if not active:
            return {}

        def train(indices: Mapping[str, Tensor]) -> Terms:
            batches = {stream: self.data.gather(stream, index) for stream, index in indices.items()}
            return {tag: value for phase in active for tag, value in phase.run(batches).items()}

        streams = dict.fromkeys(phase.phase.stream for phase in active)
        indices = {stream: self.data.indices(stream, step) for stream in streams}
        return self.engine.run(
            " ".join(phase.name for phase in active), train, indices,
            first=any(step == phase.first for phase in active), buffers=self._buffers(),
        )  # fmt: skip

    def learning_rates(self) -> dict[str, float]:
        """By scalar tag."""
        return {tag: rate for phase in self.phases for tag, rate in phase.learning_rates().items()}

    def look(self, split: str, epoch: int | None) -> Findings:
        """What evaluators find on a split; training goes on untouched.

        Args:
            split: `valid` or `test`.
            epoch: finished epochs, of which each evaluator looks at its own and at the last; None: all look.
        """
        last = epoch == self.config.schedule.epochs
        due = {
            name: one
            for name, one in self.evaluators.items()
            if epoch is None or (one.every and (last or epoch % one.every == 0))
        }
        if not due and epoch is not None:
            return {}
        # at the end also for the weights that are saved
        torch.manual_seed(derive_seed("calibration", self.config.seed))
        with torch.no_grad(), exact_products():
            # as in training: on the stream that the first phase reads, with its labels
            images = self.data.first(self.phases[0].phase.stream, CALIBRATION)
            self.model.calibrate(images.batches(1000))
            self.model.eval()
            snapshot = Snapshot(self.model, self.priors, self.data, split)
            findings = evaluate(due, snapshot, self.config.seed)
            if epoch is None:
                findings["codes"] = snapshot.projection()
            self.model.train()
        return findings

    def state(self) -> dict[str, Any]:
        """Everything that training changes: tensors and plain numbers.

        Raises:
            NumericalError: a weight is not finite, so this state must not be saved.
        """
        for name, tensor in self._tensors():
            if not tensor.isfinite().all():
                raise NumericalError(
                    f"{name} is no longer finite. Nothing of it is saved. Lower the learning rates."
                )
        return {
            "tensors": {name: tensor.detach() for name, tensor in self._tensors()},
            "optimizers": {update.name: update.state() for update in self._updates()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a state.

        Raises:
            CheckpointError: it is that of another model.
        """
        own = dict(self._tensors())
        if own.keys() != state["tensors"].keys():
            raise CheckpointError(
                "The saved state has other tensors than this model. Start with resume=false."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state["tensors"][name])
        for update in self._updates():
            update.load(state["optimizers"][update.name])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        parts = nn.ModuleDict({"model": self.model} | {phase.name: phase.phase for phase in self.phases})
        yield from parts.named_parameters()  # each once, though every phase holds the model
        yield from parts.named_buffers()

    def _buffers(self) -> Iterator[Tensor]:
        yield from (tensor for _, tensor in self._tensors() if not isinstance(tensor, nn.Parameter))

    def _updates(self) -> Iterator[Update]:
        for phase in self.phases:
            yield from phase.updates


def evaluate(evaluators: Mapping[str, Evaluator], snapshot: Snapshot, seed: int) -> Findings:
    """What evaluators find of a model, each as a function of its name and the run's seed alone.

    What has the name of something that one before it found gets that of its own entry as well: KEY_NAME.

    Raises:
        NumericalError: codes are not finite.
    """
    findings: Findings = {}
    with torch.no_grad(), exact_products():
        torch.manual_seed(derive_seed("codes", seed))  # not that of whoever asks for them first
        for name, value in snapshot.values.items():
            if not value.isfinite().all():
                raise NumericalError(f"codes of the head {name} are not finite. Lower the learning rates.")
        for key, evaluator in evaluators.items():
            torch.manual_seed(derive_seed("evaluation", seed, key))
            for name, found in evaluator(snapshot).items():
                tag = f"{key}_{name}" if name in findings else name
                # any kind of number: an evaluator of the user's own returns what it has
                findings[tag] = float(found) if isinstance(found, Real | Tensor) else found
    return findings


def read_data(config: Config, build: Builder, corrupt: nn.Module, device: torch.device) -> Data:
    """Reads the data of a run.

    Raises:
        ConfigError: the data set cannot be built as asked.
        DataError: the data are missing or damaged.
    """
    facts, source = part(Facts, config.data, "data")
    splits, batch = build(source, "data").read(), config.schedule.batch
    return Data(splits, facts, seed=config.seed, batch=batch, corrupt=corrupt, device=device)


def prepare(config: Config, build: Builder, *, begun: bool = False) -> Experiment:
    """Builds all parts of a run; what is wrong with the config is found before data are read or downloaded.

    Args:
        config: the settled config.
        build: makes components.
        begun: a saved state will be loaded, so `config.weights` may be gone.

    Raises:
        ConfigError: a part cannot be built as asked.
        CheckpointError: the weights that it shall start with are damaged.
        DataError: the data are missing or damaged.
    """
    device = choose_device(config.device)
    use_own_cores()
    give_back_memory()
    torch.set_flush_denormal(True)  # they slow a CPU down and mean nothing; of threads that are yet to start
    precision, error = choose_precision(config.precision, device)
    parts = build_parts(config, build)
    start = start_with(parts.model, config) if config.weights is not None and not begun else None
    cast = autocast(config.autocast, device)
    engine = Engine("eager", device, cast)
    tried = [  # only to find mistakes before the data are read
        _schedule(config, build, name, phase, engine=engine, steps_per_epoch=1)
        for name, phase in parts.phases.items()
    ]
    name = choose_engine(config.engine, device, [update for phase in tried for update in phase.updates])
    engine = Engine(name, device, cast)
    data = read_data(config, build, parts.corrupt, device)
    for module in (parts.model, parts.corrupt, *parts.priors.values(), *parts.phases.values()):
        module.to(device)
    phases = [
        _schedule(config, build, name, phase, engine=engine, steps_per_epoch=data.steps_per_epoch)
        for name, phase in parts.phases.items()
    ]
    for phase in phases:
        phase.require_time(config.schedule.epochs * data.steps_per_epoch)
    arithmetic = (
        f"Matrix products at precision {precision} (relative error {error:.0e}), on {device}, "
        f"{counted(torch.get_num_threads(), 'thread')}, engine {engine.name}"
        + (", updates in bfloat16 (autocast)." if config.autocast else ".")
    )
    return Experiment(
        config, data, parts.model, parts.priors, phases, parts.evaluators, engine, arithmetic, start
    )


def _schedule(
    config: Config,
    build: Builder,
    name: str,
    phase: Phase,
    *,
    engine: Engine,
    steps_per_epoch: int,
) -> Scheduled:
    key = f"schedule.phases.{name}"
    timing, optimizers = part(Timing, config.schedule.phases.get(name, {}), key)
    if phase.once and timing.every > 1:
        raise ConfigError(f"{key}.every={timing.every}: it runs once. Leave `every` out; `start` says when.")
    objectives = phase.objectives()
    if not objectives and timing.decay is not None:
        raise ConfigError(f"{key}.decay: this phase has no learning rates. Leave it out.")
    if not objectives and "optimizer" in config.phases[name]:
        raise ConfigError(f"phases.{name}.optimizer: this phase has no learning rates. Leave it out.")
    allowed = [*objectives, "optimizer"] if objectives else []
    for given in optimizers:
        if given not in allowed:
            hint = nearest(given, [*allowed, "every", "start", "decay"])
            raise ConfigError(f"{key}.{given} is no update of this phase.{hint}")
    own, own_key = config.phases[name].get("optimizer"), f"phases.{name}.optimizer"
    if own is not None and optimizers:
        raise ConfigError(f"{own_key} would not be used: the schedule has {key}. Set the rates there.")
    if own is None:
        own, own_key = config.schedule.default, "schedule.default"
    decay = timing.decay if timing.decay is not None else config.schedule.decay
    factor = decay_factor(decay, config.schedule.epochs * steps_per_epoch, steps_per_epoch)
    updates = []
    for update, objective in objectives.items():
        named = next((one for one in (update, "optimizer") if optimizers.get(one)), None)
        where = f"{key}.{named}" if named else own_key
        node = check(Component, optimizers[named] if named else own, where)
        if node["_target_"] in UNFIT:
            raise ConfigError(
                f"{where}._target_={node['_target_']}: it wants another loop or other gradients than "
                "there are here. Take torch.optim.SGD, Adam, AdamW or another one of torch.optim."
            )
        objective = Objective(engine(objective.loss), objective.modules)  # noqa: PLW2901
        make = functools.partial(build, node, where)
        graphed = engine.name != "eager"
        updates.append(Update(f"{name}/{update}", objective, make, factor, graphed=graphed))
    start = round(timing.start * steps_per_epoch)
    stretches = bool(updates) and decay in ("linear", "cosine")
    return Scheduled(name, phase, engine(phase.codes), updates, timing.every, start, stretches)


def decay_factor(decay: Decay, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the learning rates, as a function of the step."""
    if decay is None:
        return lambda step: 1.0
    if decay == "linear":
        return lambda step: 1 - step / total_steps
    if decay == "cosine":
        return lambda step: (1 + math.cos(math.pi * step / total_steps)) / 2
    pairs = decay  # of an epoch and a factor
    return lambda step: math.prod(factor for epoch, factor in pairs if step >= epoch * steps_per_epoch)


def choose_device(name: str) -> torch.device:
    """The device of a name: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:0`, ...

    Raises:
        ConfigError: it is not to be had here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        here = ", ".join(["auto", "cpu", *["cuda"][: len(found)], *found])
        lacking = "" if found else ", where torch finds no GPU"
        raise ConfigError(f"device={name}: not to be had here{lacking}. Allowed: {here}.") from error
    return device
