"""Updates: what one is, and how it is run."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from aae_runner.data import Batch, Images
from aae_runner.errors import ConfigError
from aae_runner.graphs import Captured, Compiled, Step, Terms, fits, prepare_compiler
from aae_runner.latents import Codes
from aae_runner.model import Model

log = logging.getLogger("aae_runner")

Loss = Callable[[Batch, Codes], dict[str, Tensor]]
"""Named terms, each a scalar; the update lowers their sum, and each is a curve of its own."""


WARM_UP = 3
"""Steps that run as they are before they are captured: they choose kernels and make the optimizers' state."""


class Engine:
    """The one seam where it is chosen how an update is computed; what it computes is the same.

    Args:
        name: `eager`: one kernel after the other; `graph`: all kernels of a step captured in a CUDA graph and
            replayed; `compile`: a step traced and compiled, and on a GPU captured, too.
        device: where it computes.
        cast: what products are computed in, where not float32; see `precision.autocast`.

    Raises:
        ConfigError: it is not to be had here.
    """

    def __init__(
        self, name: Literal["eager", "compile", "graph"], device: torch.device, cast: torch.autocast | None
    ) -> None:
        if name == "graph" and device.type != "cuda":
            raise ConfigError(
                f"engine=graph: needs a GPU, and this run computes on {device}. Allowed: eager, compile."
            )
        if name == "compile":
            prepare_compiler(device)
        self.name, self._cast = name, cast
        self._compiled: dict[str, Step] = {}
        self._seen: Counter[str] = Counter()
        self._captured: dict[str, Step] = {}
        captures = device.type == "cuda" and name != "eager"
        self._stream = torch.cuda.Stream(device) if captures else None

    def __call__(self, function: Any) -> Any:
        """From a function of tensors to one that multiplies as the run was asked to."""
        return function if self._cast is None else self._cast(function)

    def run(
        self, key: str, step: Step, indices: Mapping[str, Tensor], *, first: bool, buffers: Iterable[Tensor]
    ) -> Terms:
        """Runs a step.

        Args:
            key: of steps that run the same kernels.
            step: what is run.
            indices: its arguments, on the device.
            first: whether an optimizer makes its memory in it, which no graph can hold.
            buffers: what it may write to, beside parameters and what optimizers remember.
        """
        if self.name == "compile" and not first:
            if key not in self._compiled:
                log.info("Compiling a step: up to a minute when it is the first of its kind.")
                self._compiled[key] = Compiled(step, indices, buffers)
            step = self._compiled[key]
        if self._stream is None:
            return step(indices)
        self._seen[key] += 1
        if self._seen[key] > WARM_UP:
            if key not in self._captured:
                self._captured[key] = Captured(step, indices, self._stream)
            return self._captured[key](indices)
        # these steps, too, are part of the training: so warming up leaves no trace that need be undone
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = step(indices)
        current.wait_stream(self._stream)
        return terms


@dataclass(frozen=True)
class Objective:
    """What an update lowers, and by moving which modules."""

    loss: Loss
    modules: Sequence[nn.Module]


class Update:
    """One optimizer step: the smallest thing that is run, logged and saved.

    Args:
        name: `<phase>/<update>`.
        objective: the loss and what it moves.
        make_optimizer: from parameters to their optimizer.
        decay: from the step to a factor on the learning rate.
        graphed: whether it becomes part of a graph, which reads the learning rates from the device.
    """

    def __init__(
        self,
        name: str,
        objective: Objective,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        decay: Callable[[int], float],
        *,
        graphed: bool = False,
    ) -> None:
        self.name, self.loss = name, objective.loss
        named = nn.ModuleList(objective.modules).named_parameters()
        self.parameter_names, parameters = (list(column) for column in zip(*named, strict=True))
        self.parameters: list[nn.Parameter] = parameters
        self.optimizer = make_optimizer(self.parameters)
        self._base = float(self.optimizer.param_groups[0]["lr"])
        self._decay = decay
        self.learning_rate = self._base
        """At the step last set."""
        if graphed:
            device = self.parameters[0].device
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(self._base, device=device)
                if "capturable" in group:
                    group["capturable"] = device.type == "cuda"

    def set_step(self, step: int) -> None:
        """Sets the learning rate of a step: a function of the step alone."""
        # as the device holds it, so that a captured update and another one compute the same
        self.learning_rate = float(np.float32(self._base * self._decay(step)))
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate

    def state(self) -> dict[Any, Any]:
        """What the optimizer remembers; its settings are a function of config and step."""
        state: dict[Any, Any] = self.optimizer.state_dict()["state"]
        return state

    def load(self, state: Mapping[Any, Any]) -> None:
        """Takes up what an optimizer remembered."""
        settings = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(state), "param_groups": settings})

    def run(self, batch: Batch, codes: Codes, *, last: bool) -> Terms:
        """Lowers the loss once and returns its terms, detached and still on the device.

        Only the update's own parameters get gradients, so none need be cleared and none can be stale.

        Args:
            batch: a minibatch.
            codes: drawn once for all updates of the phase.
            last: whether no later update needs the codes' graph.

        Raises:
            ConfigError: a parameter that the loss does not reach.
        """
        terms = self.loss(batch, codes)
        total = torch.stack(list(terms.values())).sum()
        gradients = torch.autograd.grad(total, self.parameters, retain_graph=not last, allow_unused=True)
        for name, parameter, gradient in zip(self.parameter_names, self.parameters, gradients, strict=True):
            if gradient is None:
                raise ConfigError(f"phases.{self.name}: its loss does not reach the parameter {name}.")
            parameter.grad = gradient
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None  # its memory is still in the cache when the next gradient is written
        return {name: term.detach() for name, term in terms.items()}


def choose_engine(
    asked: Literal["auto", "eager", "compile", "graph"], device: torch.device, updates: Iterable[Update]
) -> Literal["eager", "compile", "graph"]:
    """`auto`: a graph on a GPU, if it can hold all optimizers.

    Raises:
        ConfigError: that which is asked for cannot.
    """
    wanted: Literal["eager", "compile", "graph"] = "graph" if device.type == "cuda" else "eager"
    if asked != "auto":
        wanted = asked
    for update in updates:
        if not fits(update.optimizer, wanted):
            others = ", and those with capturable" if wanted == "graph" else ""
            said = (
                f"engine={wanted} cannot hold the optimizer of phases.{update.name}, only torch.optim.Adam, "
                f"AdamW and SGD with fused=true{others}."
            )
            if asked != "auto":
                raise ConfigError(f"{said} Choose one of these, or engine=eager.")
            log.info("%s So it is eager.", said)
            return "eager"
    return wanted


class Phase(nn.Module, ABC):
    """A part of every step (reconstruction, regularization, ...): updates that share one draw of the codes.

    A subclass is built with the model, the priors by head, and a maker of discriminators; it says what
    its updates are. It owns, as submodules, what only it needs.

    Args:
        model: the autoencoder.
        stream: which images it sees: `all` or `labelled`.
    """

    def __init__(self, model: Model, stream: str) -> None:
        super().__init__()
        self.model = model
        self.stream = stream

    @abstractmethod
    def objectives(self) -> dict[str, Objective]:
        """The updates by name, in the order in which they run; none, where all is done by `prepare`."""

    once = False
    """Whether it runs in the first step of its time alone."""

    def prepare(self, first: Callable[[int], Images]) -> None:
        """What it does before a step in which it runs, outside of what an engine keeps: nothing.

        Args:
            first: the first n training images of its stream.
        """
        return

    def codes(self, batch: Batch) -> Codes:
        """Drawn once per step, shared by the updates: those of the first corrupted copy of each image."""
        return self.model.encode(batch.x_in[0], batch.y)


@dataclass(frozen=True)
class Scheduled:
    """A phase with its updates and its hours."""

    name: str
    phase: Phase
    codes: Callable[[Batch], Codes]
    """The phase's own, as the engine runs it."""
    updates: Sequence[Update]
    every: int
    start: int
    """The step from which it runs."""
    stretches: bool
    """Whether its rates depend on how long the run is to be."""

    @property
    def first(self) -> int:
        """The first step in which it runs."""
        return -(-self.start // self.every) * self.every

    def active(self, step: int) -> bool:
        """Whether it runs in this step."""
        return step == self.first if self.phase.once else step >= self.start and step % self.every == 0

    def require_time(self, total_steps: int) -> None:
        """Refuses a run that ends before the phase begins.

        Raises:
            ConfigError: it does.
        """
        if self.first >= total_steps:
            raise ConfigError(
                f"phases.{self.name}: the run ends before it begins. "
                f"Lower schedule.phases.{self.name}.start (or .every), or raise schedule.epochs."
            )

    def set_step(self, step: int) -> None:
        """Sets the learning rates of a step."""
        for update in self.updates:
            update.set_step(step)

    def run(self, batches: Mapping[str, Batch]) -> Terms:
        """Runs the updates in turn; returns every term, by its scalar tag."""
        batch = batches[self.phase.stream]
        codes = self.codes(batch)
        terms: Terms = {}
        for update in self.updates:
            terms |= update.run(batch, codes, last=update is self.updates[-1])
        if len(terms) == 1:
            return {f"loss/{self.name}": next(iter(terms.values()))}
        return {f"loss/{self.name}/{term}": value for term, value in terms.items()}

    def learning_rates(self) -> dict[str, float]:
        """By scalar tag."""
        if len(self.updates) == 1:
            return {f"lr/{self.name}": self.updates[0].learning_rate}
        return {f"lr/{update.name}": update.learning_rate for update in self.updates}
