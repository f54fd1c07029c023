"""How an update is computed: whatever the engine, it is the same."""

import functools
from collections import Counter

import pytest
import torch
from conftest import Command, experiment
from torch import nn
from torch.fx import GraphModule

from aae_runner.config import choices
from aae_runner.experiment import Experiment
from aae_runner.precision import has_bfloat16

STEPS = 12
"""Beyond those that warm a captured step up."""

SETTINGS = [
    *([f"variant={name}"] for name in choices("variant") if name != "label_conditioned"),
    ["variant=label_conditioned", "prior=gaussian_mixture"],
    ["variant=vae", "prior=gaussian_mixture"],  # a divergence by Monte Carlo
    ["+phase@phases.virtual_adversarial=virtual_adversarial"],  # a gradient within a loss
    ["+phase@phases.invariance=invariance"],  # images drawn within a loss
    [
        "variant=clustering",
        "+phase@phases.merging=merging",
        "+schedule.phases.merging.start=0.2",
    ],  # in step 4
]

OPTIMIZERS = [
    "{_target_: torch.optim.Adam, lr: 1e-2, fused: true, weight_decay: 1e-2, amsgrad: true}",
    "{_target_: torch.optim.AdamW, lr: 1e-2, fused: true, weight_decay: 1e-1, maximize: true}",
    "{_target_: torch.optim.SGD, lr: 1e-2, fused: true, momentum: 0.9, nesterov: true, weight_decay: 1e-2}",
    "{_target_: torch.optim.SGD, lr: 1e-2, fused: true, momentum: 0.5, dampening: 0.1, maximize: true}",
    "{_target_: torch.optim.SGD, lr: 1e-2, fused: true}",
]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here to capture on")
needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this CPU does not multiply bfloat16"
)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traced step runs as the graph that it is: compiling takes half a minute."""
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)


def trained(*overrides: str, steps: int = STEPS) -> tuple[Experiment, list[dict[str, float]]]:
    run = experiment("schedule.batch=50", *overrides)
    losses = [run.step(step) for step in range(steps)]
    return run, [{tag: float(value) for tag, value in terms.items()} for terms in losses]


@needs_gpu
@pytest.mark.parametrize("setting", SETTINGS, ids=" ".join)
def test_a_captured_run_has_the_bits_of_an_eager_one(setting: list[str]) -> None:
    eager, captured = (trained(*setting, "device=cuda", f"engine={engine}") for engine in ("eager", "graph"))
    assert captured[1] == eager[1]
    for name, tensor in eager[0].model.state_dict().items():
        assert torch.equal(tensor, captured[0].model.state_dict()[name]), name


@needs_gpu
def test_phases_that_run_now_and_then_are_captured_too() -> None:
    asked = (
        "device=cuda",
        "+schedule.phases.classification.every=3",
        "+schedule.phases.regularization.start=0.2",
    )
    assert trained(*asked, "engine=graph")[1] == trained(*asked, "engine=eager")[1]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("setting", SETTINGS, ids=" ".join)
def test_a_step_traced_into_one_graph_trains_as_it_does_untraced(setting: list[str]) -> None:
    (_, eager), (_, traced) = trained(*setting, steps=5), trained(*setting, "engine=compile", steps=5)
    for tag, value in eager[-1].items():
        assert traced[-1][tag] == pytest.approx(value, rel=1e-4), tag


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_traced_optimizer_moves_weights_as_it_does_untraced(optimizer: str) -> None:
    # the rates fall meanwhile
    asked = "variant=baseline", "schedule.epochs=1", f"++schedule.phases.classification.optimizer={optimizer}"
    (eager, _), (traced, _) = trained(*asked), trained(*asked, "engine=compile")
    for name, tensor in eager.model.state_dict().items():
        assert torch.allclose(traced.model.state_dict()[name], tensor, atol=1e-5), name


@pytest.mark.usefixtures("uncompiled")
def test_a_traced_run_that_is_taken_up_again_ends_with_the_same_bits() -> None:
    # the second phase comes in the third step, and then every other one
    own = "+schedule.phases.regularization.every=2", "+schedule.phases.regularization.start=0.1"
    asked = "engine=compile", "variant=basic", *own
    (whole, _), (half, _) = trained(*asked, steps=7), trained(*asked, steps=3)
    again = experiment("schedule.batch=50", *asked)
    again.load(half.state())
    for step in range(3, 7):
        again.step(step)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_all_phases_may_rest_in_a_step(engine: str) -> None:
    run = experiment(
        "variant=baseline", f"engine={engine}", "+schedule.phases.classification.every=2", "device=cpu"
    )
    assert [bool(run.step(step)) for step in range(4)] == [True, False, True, False]


@pytest.mark.usefixtures("uncompiled")
def test_what_a_network_counts_is_counted_once_a_step_where_it_is_traced() -> None:
    run = experiment("engine=compile", "variant=baseline", "device=cpu")
    run.model.encoder.register_buffer("passes", torch.zeros(()))

    def count(network: nn.Module, images: object) -> None:
        network.get_buffer("passes").add_(1)

    run.model.encoder.register_forward_pre_hook(count)
    for step in range(5):
        run.step(step)
    assert int(run.model.encoder.get_buffer("passes")) == 5


def test_products_that_need_not_wait_for_one_another_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # slow to import
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.pattern_matcher import stable_topological_sort

    from aae_runner.streams import SideBySide

    found: list[Counter[str]] = []

    def arrange(module: GraphModule, arguments: object) -> GraphModule:
        # what the compiler does on a GPU
        SideBySide()(module.graph)
        stable_topological_sort(module.graph)
        module.recompile()
        found.append(Counter(str(node.target) for node in module.graph.nodes))
        return module

    compiler = functools.partial(torch.compile, backend=aot_autograd(fw_compiler=arrange))
    monkeypatch.setattr(torch, "compile", compiler)
    (_, eager), (_, arranged) = (
        trained("device=cpu", f"engine={engine}", steps=4) for engine in ("eager", "compile")
    )
    for tag, value in eager[-1].items():
        assert arranged[-1][tag] == pytest.approx(value, rel=1e-4), tag
    kinds = "aten.mm.default", "aten.addmm.default", "aae_runner.products.default"
    assert sum(found[-1][kind] for kind in kinds) == 36  # of 67 products, one after the other


def test_an_optimizer_that_cannot_be_traced_is_told_before_the_first_step(command: Command) -> None:
    status, said = command("engine=compile", "schedule.phases.classification.optimizer.fused=false")
    assert status == 2
    assert "phases.classification/classifier" in said
    assert "fused=true" in said


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("setting", SETTINGS, ids=" ".join)
def test_on_a_gpu_no_eager_step_waits_for_it(setting: list[str]) -> None:
    run, _ = trained(*setting, "device=cuda", "engine=eager")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(STEPS, 2 * STEPS):
            run.step(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.filterwarnings("default")  # torch's own, as it traces and compiles
@pytest.mark.parametrize("cast", ["autocast=false", "autocast=true"])
def test_on_a_gpu_a_compiled_run_is_captured_and_goes_the_same_way(cast: str) -> None:
    (_, eager), (_, compiled) = (
        trained("device=cuda", cast, f"engine={engine}") for engine in ("eager", "compile")
    )
    for tag, value in eager[-1].items():
        assert compiled[-1][tag] == pytest.approx(value, rel=1e-2), tag


@pytest.mark.filterwarnings("default")  # torch's own, as it traces and compiles
@pytest.mark.parametrize(
    "cast", ["autocast=false", pytest.param("autocast=true", marks=[needs_bfloat16, pytest.mark.large])]
)
def test_a_compiled_run_goes_the_same_way_as_an_eager_one(cast: str) -> None:
    (_, eager), (_, compiled) = trained("device=cpu", cast), trained("device=cpu", cast, "engine=compile")
    for tag, value in eager[-1].items():
        assert compiled[-1][tag] == pytest.approx(value, rel=1e-3 if cast == "autocast=false" else 1e-2), tag


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a step can be captured")
def test_without_a_gpu_nothing_is_captured_and_the_sentence_says_what_is_allowed(command: Command) -> None:
    status, said = command("engine=graph")
    assert status == 2
    assert "engine=graph" in said
    assert "eager, compile" in said


@needs_bfloat16
@pytest.mark.parametrize("setting", SETTINGS, ids=" ".join)
def test_in_bfloat16_weights_and_losses_stay_float32(setting: list[str]) -> None:
    run = experiment("schedule.batch=50", *setting, "autocast=true")
    assert {value.dtype for value in run.step(0).values()} == {torch.float32}
    assert {tensor.dtype for tensor in run.model.parameters()} == {torch.float32}


@needs_bfloat16
def test_in_bfloat16_training_goes_the_same_way() -> None:
    (_, exact), (_, rough) = trained(), trained("autocast=true")
    assert rough != exact  # it did compute in bfloat16
    for tag, value in exact[-1].items():
        assert rough[-1][tag] == pytest.approx(value, rel=0.05), tag


def test_bfloat16_is_refused_where_the_hardware_has_none_and_can_be_forced(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    status, said = command("autocast=true", "device=cpu")
    assert status == 2
    assert "autocast=false" in said
    assert "autocast=force" in said
    assert command("autocast=force", "device=cpu", "schedule.epochs=1")[0] == 0
