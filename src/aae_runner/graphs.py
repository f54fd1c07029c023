"""A step as one graph: traced and compiled, or captured on a GPU."""

import importlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from aae_runner.errors import ConfigError

Terms = dict[str, Tensor]
"""Losses by scalar tag, detached and still on the device."""

Step = Callable[[Mapping[str, Tensor]], Terms]
"""Trains once on the images of given indices: by stream, (B,) int64."""


class Compiled:
    """A step, its walks back and its optimizers included, as one graph that torch's compiler optimizes.

    Nothing is trained by tracing; what the optimizers remember must be there already.

    Args:
        step: what is traced; a `Step` itself afterwards.
        indices: its arguments, on the device.
        buffers: what a step may write to, beside parameters and what optimizers remember.

    Raises:
        ConfigError: it cannot be traced or compiled.
    """

    def __init__(self, step: Step, indices: Mapping[str, Tensor], buffers: Iterable[Tensor]) -> None:
        self._tags: list[str] = []

        def stacked(*given: Tensor) -> Tensor:
            terms = step(dict(zip(indices, given, strict=True)))
            self._tags = list(terms)
            return torch.stack(list(terms.values()))

        # torch runs `buffer.add_(1)`, where all but numbers is real, while it traces it
        kept = [(buffer, buffer.clone()) for buffer in buffers]
        try:
            traced = make_fx(stacked, _FUSED, tracing_mode="fake", _allow_non_fake_inputs=True)(
                *indices.values()
            )
        except RuntimeError as error:
            raise _impossible("traced", error) from error
        for buffer, before in kept:
            buffer.copy_(before)
        for node in reversed(traced.graph.nodes):
            if str(node.target).startswith("profiler."):  # an optimizer's name for itself
                traced.graph.erase_node(node)
        traced.recompile()
        self._run = torch.compile(traced, dynamic=False)

    @torch.no_grad()
    def __call__(self, indices: Mapping[str, Tensor]) -> Terms:
        """Trains once."""
        try:
            values = self._run(*indices.values())
        except _compiler_error() as error:
            raise _impossible("compiled", error) from error
        return dict(zip(self._tags, values.unbind(), strict=True))


class Captured:
    """The kernels of a step, replayed. Random numbers follow the global generator's seed, in a replay too.

    Args:
        step: what is captured; it is not run by that. A `Step` itself afterwards.
        indices: its arguments, on the device.
        stream: on which it was run before.

    Raises:
        ConfigError: it cannot be captured.
    """

    def __init__(self, step: Step, indices: Mapping[str, Tensor], stream: torch.cuda.Stream) -> None:
        self._indices = {name: index.clone() for name, index in indices.items()}
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, stream=stream):
                terms = step(self._indices)
                self._tags, self._values = list(terms), torch.stack(list(terms.values()))
        except RuntimeError as error:
            raise _impossible("captured", error) from error

    def __call__(self, indices: Mapping[str, Tensor]) -> Terms:
        """Trains once."""
        for name, index in indices.items():
            self._indices[name].copy_(index)
        self._graph.replay()
        # a copy: the next replay writes to the same place, and the losses are read only once a report
        return dict(zip(self._tags, self._values.clone().unbind(), strict=True))


def fits(optimizer: torch.optim.Optimizer, engine: str) -> bool:
    """Whether a graph can hold its step: of the others, some count their steps on the host."""
    kinds = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD
    fused = isinstance(optimizer, kinds) and all(group["fused"] for group in optimizer.param_groups)
    return {"eager": True, "compile": fused, "graph": fused or "capturable" in optimizer.defaults}[engine]


def prepare_compiler(device: torch.device) -> None:
    """Must come before `Compiled`.

    Raises:
        ConfigError: there is no compiler.
    """
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
        # it looks for CUDA's compiler, and warns of what it finds where no GPU is
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    inductor: Any = importlib.import_module("torch._inductor.config")
    inductor.fallback_random = True  # the random numbers of eager, drawn in its order with torch 2.11 too
    inductor.reorder_for_locality = inductor.reorder_for_peak_memory = False
    if device.type == "cuda":
        from aae_runner.streams import SideBySide

        inductor.combo_kernels = True  # one kernel for many alike: 213 become 188
        inductor.post_grad_custom_post_pass = SideBySide()


def _impossible(done: str, error: Exception) -> ConfigError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"engine: a step of this run cannot be {done} ({reason}). Start it "
        "afresh with engine=eager resume=false."
    )


def _compiler_error() -> type[Exception]:
    found: type[Exception] = importlib.import_module("torch._dynamo.exc").TorchDynamoException
    return found


# torch's fused optimizers are one kernel each, which a compiler cannot look into. Written out, they become
# part of the loops around them: a weight is moved and rounded for the next product while it is in a register.
# Memory is written to by what depends on a gradient: `memory.mul_(number)` would be run as well as traced.


def _adam(  # noqa: PLR0917 - as torch calls it
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    largest: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool = False,
    **scaling: None,
) -> None:
    """Adam (arXiv 1412.6980, Algorithm 1); decoupled: AdamW (arXiv 1711.05101, Algorithm 2)."""
    count = steps[0].double()  # that of all
    # an exponential is computed once beforehand; a power would be for each weight
    faded1, faded2 = ((count * math.log(max(beta, 1e-300))).exp() for beta in (beta1, beta2))
    rate, unbias = (lr / (1 - faded1)).float(), (1 - faded2).sqrt().float()
    for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        slope = -gradient if maximize else gradient
        if weight_decay and not decoupled:
            slope = slope + weight_decay * parameter
        mean = means[k].lerp_(slope, 1 - beta1)
        square = squares[k].lerp_(slope.square(), 1 - beta2)
        if amsgrad:
            square = largest[k].copy_(torch.maximum(largest[k], square))
        move = rate * mean / (square.sqrt() / unbias + eps)
        if decoupled:
            move = move + lr * weight_decay * parameter
        parameter.sub_(move)


def _adamw(*given: Any, **settings: Any) -> None:
    _adam(*given, **settings, decoupled=True)


def _sgd(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    velocities: Sequence[Tensor],
    *,
    weight_decay: float,
    momentum: float,
    lr: Tensor,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    **scaling: None,
) -> None:
    """SGD with momentum; its first step, which makes the memory, is never traced."""
    for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        slope = -gradient if maximize else gradient
        if weight_decay:
            slope = slope + weight_decay * parameter
        if momentum:
            velocity = velocities[k].copy_(momentum * velocities[k] + (1 - dampening) * slope)
            slope = slope + momentum * velocity if nesterov else velocity
        parameter.sub_(lr * slope)


_FUSED: dict[Any, Callable[..., None]] = {
    torch.ops.aten._fused_adam_.tensor_lr: _adam,
    torch.ops.aten._fused_adamw_.tensor_lr: _adamw,
    torch.ops.aten._fused_sgd_.tensor_lr: _sgd,
}
