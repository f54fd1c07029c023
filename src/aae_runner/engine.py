"""Updates: what one is, and how it is run."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aae_runner.data import Batch
from aae_runner.errors import ConfigError
from aae_runner.latents import Codes

Loss = Callable[[Batch, Codes], dict[str, Tensor]]
"""Named terms, each a scalar; the update lowers their sum, and each is a curve of its own."""


Compiler = Callable[[Any], Any]
"""From a function of tensors to one that computes the same."""

EXACT = 1e-6
"""Relative error of a product below which a precision costs no accuracy; TF32 has 3e-4, bfloat16 3e-3."""


def choose_precision(asked: str, device: torch.device) -> tuple[str, float]:
    """Sets how torch multiplies float32 matrices: (the precision, the measured relative error of a product).

    What `medium` does depends on the machine: some have a faster kernel of full accuracy behind it, others
    round to bfloat16. `auto` measures, and takes `medium` only where its error is below `EXACT`.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator).to(device) for _ in range(2))
    exact = a.double() @ b.double()
    torch.backends.cudnn.allow_tf32 = asked in ("high", "medium")
    for precision in ("medium", "highest") if asked == "auto" else (asked,):
        torch.set_float32_matmul_precision(precision)
        error = float(((a @ b).double() - exact).norm() / exact.norm())
        if error < EXACT:
            break
    return precision, error


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Products, convolutions included, at full float32 precision while it lasts."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


def compiler(engine: str, device: torch.device) -> Compiler:
    """How a function of tensors is run: as it is (`eager`), or by torch.compile (`compile`).

    Raises:
        ConfigError: there is no compiler for it.
    """
    if engine == "eager":
        return lambda function: function
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ConfigError(
                "engine=compile: needs a C++ compiler, and none is found. Install g++ or clang++, or choose "
                "engine=eager."
            ) from error
    functorch: Any = importlib.import_module("torch._functorch.config")
    inductor: Any = importlib.import_module("torch._inductor.config")
    functorch.donated_buffer = False  # two updates walk back through the same codes
    inductor.fallback_random = True  # the random numbers of eager
    return lambda function: torch.compile(function, dynamic=False)


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
    """

    def __init__(
        self,
        name: str,
        objective: Objective,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        decay: Callable[[int], float],
    ) -> None:
        self.name, self.loss = name, objective.loss
        named = nn.ModuleList(objective.modules).named_parameters()
        self.parameter_names, parameters = (list(column) for column in zip(*named, strict=True))
        self.parameters: list[nn.Parameter] = parameters
        self.optimizer = make_optimizer(self.parameters)
        self._base = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._decay = decay

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group, at the step last set."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_step(self, step: int) -> None:
        """Sets the learning rates of a step: a function of the step alone."""
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * self._decay(step)

    def run(self, batch: Batch, codes: Codes, *, last: bool) -> dict[str, Tensor]:
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
        return {name: term.detach() for name, term in terms.items()}


class Phase(nn.Module):
    """A part of every step (reconstruction, regularization, ...): updates that share one draw of the codes.

    A subclass is built with the model, the priors by head, and a maker of discriminators; it says what
    its updates are. It owns, as submodules, what only it needs.

    Args:
        model: the autoencoder.
        stream: which images it sees: `all` or `labelled`.
    """

    def __init__(self, model: nn.Module, stream: str) -> None:
        super().__init__()
        self.model = model
        self.stream = stream

    def objectives(self) -> dict[str, Objective]:
        """The updates by name, in the order in which they run."""
        raise NotImplementedError

    def codes(self, batch: Batch) -> Codes:
        """Drawn once per step, shared by the updates."""
        codes: Codes = self.model.encode(batch.x_in, batch.y)  # type: ignore[operator]
        return codes


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

    def active(self, step: int) -> bool:
        """Whether it runs in this step."""
        return step >= self.start and step % self.every == 0

    def run(self, batches: Mapping[str, Batch], step: int) -> dict[str, Tensor]:
        """Runs the updates in turn; returns every term, by its scalar tag."""
        batch = batches[self.phase.stream]
        codes = self.codes(batch)
        terms: dict[str, Tensor] = {}
        for update in self.updates:
            update.set_step(step)
            terms |= update.run(batch, codes, last=update is self.updates[-1])
        if len(terms) == 1:
            return {f"loss/{self.name}": next(iter(terms.values()))}
        return {f"loss/{self.name}/{term}": value for term, value in terms.items()}

    def learning_rates(self) -> dict[str, float]:
        """By scalar tag."""
        if len(self.updates) == 1:
            return {f"lr/{self.name}": self.updates[0].learning_rate}
        return {f"lr/{update.name}": update.learning_rate for update in self.updates}
