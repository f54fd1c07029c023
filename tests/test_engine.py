"""How an update is computed: whatever the engine, it is the same."""

import pytest
import torch
from conftest import Command, experiment

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
]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here to capture on")
needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this CPU does not multiply bfloat16"
)


def trained(*overrides: str) -> tuple[Experiment, list[dict[str, float]]]:
    run = experiment("schedule.batch=50", *overrides)
    losses = [run.step(step) for step in range(STEPS)]
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


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, as it traces
def test_a_compiled_run_goes_the_same_way_as_an_eager_one() -> None:
    (_, eager), (_, compiled) = trained("device=cpu"), trained("device=cpu", "engine=compile")
    for tag, value in eager[-1].items():
        assert compiled[-1][tag] == pytest.approx(value, rel=1e-3), tag


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
