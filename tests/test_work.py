"""How much work a step is: counted, not timed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from conftest import experiment
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from aae_runner.config import choices
from aae_runner.experiment import Experiment

# forwards of encoder, decoder and each discriminator; optimizer steps, which are the walks backwards too
WORK = {
    "basic": {"encoder": 2, "decoder": 1, "style": 2, "updates": 3},
    "label_conditioned": {"encoder": 2, "decoder": 1, "style": 2, "updates": 3},
    "supervised": {"encoder": 2, "decoder": 1, "style": 2, "updates": 3},
    "semi_supervised": {"encoder": 3, "decoder": 1, "style": 2, "label": 2, "updates": 4},
    "clustering": {"encoder": 2, "decoder": 1, "style": 2, "label": 2, "updates": 3},
    "dim_reduction": {"encoder": 3, "decoder": 1, "style": 2, "label": 2, "updates": 5},
    "dim_reduction_unsupervised": {"encoder": 2, "decoder": 1, "style": 2, "label": 2, "updates": 4},
    "vae": {"encoder": 1, "decoder": 1, "updates": 1},
    "baseline": {"encoder": 1, "updates": 1},
}
"""The least that each algorithm allows: a draw of the codes a phase, one decoding, one walk back an update;
of a discriminator one pass for real and fake together, and one for the generator."""

SYNCS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "bincount")
"""Operations for which the host would have to wait for a GPU: their result or its size must be known."""


class Operations(TorchDispatchMode):
    """Counts every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def adversaries(run: Experiment) -> dict[str, nn.Module]:
    return {
        name: one
        for phase in run.phases
        for name, one in getattr(phase.phase, "discriminators", nn.ModuleDict()).items()
    }


def variant_run(variant: str) -> Experiment:
    more = ["prior=gaussian_mixture"] if variant == "label_conditioned" else []
    return experiment(f"variant={variant}", "schedule.batch=50", *more)


def test_the_work_of_every_variant_is_counted() -> None:
    assert set(WORK) == set(choices("variant"))


@pytest.mark.parametrize("variant", WORK)
def test_a_step_is_the_least_work_that_the_algorithm_allows(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = variant_run(variant)
    found: Counter[str] = Counter()

    def count(name: str) -> Any:
        return lambda *anything: found.update([name])

    parts = {"encoder": run.model.encoder, "decoder": run.model.decoder, **adversaries(run)}
    for name, part in parts.items():
        if part is not None:
            part.register_forward_hook(count(name))
    for phase in run.phases:
        for update in phase.updates:
            update.optimizer.register_step_post_hook(count("updates"))
    walks: Counter[str] = Counter()
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *given, **more: (walks.update(["back"]), grad(*given, **more))[1]
    )
    run.step(0)
    assert found == WORK[variant]
    assert walks["back"] == found["updates"]


@pytest.mark.parametrize("variant", WORK)
def test_a_step_never_waits_for_the_device(variant: str) -> None:
    run = variant_run(variant)
    run.step(0)  # makes the optimizers' state
    with Operations() as operations:
        run.step(1)
    assert operations.seen["addmm"] + operations.seen["mm"] > 0
    assert not set(SYNCS) & set(operations.seen)
