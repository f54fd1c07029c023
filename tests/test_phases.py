"""Phases: what each update moves, what it reads, and how much work a step is."""

from collections.abc import Callable

import pytest
import torch
from conftest import composed, experiment
from torch import Tensor, nn

from aae_runner.build import Builder
from aae_runner.data import Images
from aae_runner.engine import Objective, Update
from aae_runner.errors import ConfigError
from aae_runner.experiment import Experiment, decay_factor
from aae_runner.parts import build_parts
from aae_runner.precision import EXACT, choose_precision


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def moved(run: Experiment, phase: str, update: str) -> set[str]:
    """The top-level parts whose weights one update changes."""
    scheduled = next(one for one in run.phases if one.name == phase)
    batch = run.data.draw(scheduled.phase.stream, 0)
    codes = scheduled.phase.codes(batch)
    before = weights(scheduled.phase)
    next(one for one in scheduled.updates if one.name == f"{phase}/{update}").run(batch, codes, last=True)
    after = weights(scheduled.phase)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    return {name.removeprefix("model.").rsplit(".", 2)[0].split(".0")[0].split(".1")[0] for name in changed}


@pytest.mark.parametrize(
    ("phase", "update", "parts"),
    [
        ("reconstruction", "autoencoder", {"encoder", "decoder", "heads.style", "heads.label"}),
        ("regularization", "discriminator", {"discriminators.style", "discriminators.label"}),
        ("regularization", "generator", {"encoder", "heads.style", "heads.label"}),
        ("classification", "classifier", {"encoder", "heads.label"}),
    ],
)
def test_an_update_moves_its_own_parts_and_no_other(phase: str, update: str, parts: set[str]) -> None:
    found = moved(experiment(), phase, update)
    assert {one for part in parts for one in found if one.startswith(part)} == found
    assert all(any(one.startswith(part) for one in found) for part in parts)


def calls(module: nn.Module, action: Callable[[], object]) -> list[int]:
    """Batch sizes of the forwards that an action makes of a module."""
    sizes: list[int] = []
    handle = module.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    action()
    handle.remove()
    return sizes


@pytest.mark.parametrize(("variant", "encoder"), [("basic", [50, 50]), ("semi_supervised", [50, 50, 50])])
def test_a_step_encodes_once_a_phase_and_decodes_once(variant: str, encoder: list[int]) -> None:
    run = experiment(f"variant={variant}", "schedule.batch=50")
    assert calls(run.model.encoder, lambda: run.step(0)) == encoder
    assert run.model.decoder is not None
    assert calls(run.model.decoder, lambda: run.step(1)) == [50]


def test_a_discriminator_sees_prior_samples_and_codes_in_one_pass_then_codes_alone() -> None:
    run = experiment("schedule.batch=50")
    discriminators = run.phases[1].phase.get_submodule("discriminators")
    for name in ("style", "label"):
        assert calls(discriminators.get_submodule(name), lambda: run.step(0)) == [100, 50]


def test_y_of_an_image_is_the_mean_over_its_corrupted_copies_and_z_that_of_the_first() -> None:
    run = experiment("network.corruption.draws=3", "schedule.batch=50")
    batch = run.data.draw("all", 0)
    with torch.no_grad():
        each = run.model.encode(batch.x_in.flatten(0, 1), batch.y.repeat(3))
        codes = run.phases[1].phase.codes(batch)
    y = each["label"].value.unflatten(0, (3, 50))
    assert float((y[0] - y[1]).abs().max()) > 0.01
    assert torch.allclose(codes["label"].value, y.mean(0), atol=1e-6)
    assert torch.allclose(codes["label"].parameters.softmax(1), y.mean(0), atol=1e-6)
    assert torch.equal(codes["style"].value, each["style"].value[:50])
    assert calls(run.model.encoder, lambda: run.step(1)) == [50, 150, 50]  # what is decoded is one copy
    assert run.model.decoder is not None
    assert calls(run.model.decoder, lambda: run.step(2)) == [50]


def test_the_discriminators_have_no_batch_norm() -> None:
    run = experiment()
    discriminators = run.phases[1].phase.get_submodule("discriminators")
    assert not any(isinstance(module, nn.BatchNorm1d) for module in discriminators.modules())


def test_a_parameter_that_the_loss_does_not_reach_is_an_error_naming_phase_and_parameter() -> None:
    run = experiment()
    batch = run.data.draw("all", 0)
    lost = nn.Linear(2, 2)
    objective = Objective(lambda batch, codes: {"zero": codes["style"].value.sum()}, [lost])
    update = Update(
        "mine/lost", objective, lambda parameters: torch.optim.SGD(parameters, lr=0.1), lambda step: 1.0
    )
    with pytest.raises(ConfigError, match=r"phases\.mine/lost.*0\.weight"):
        update.run(batch, run.model.infer(batch.x_in, batch.y), last=True)


def test_classification_reads_the_labelled_stream_and_never_an_unknown_label() -> None:
    run = experiment("data.labels=20")
    phase = run.phases[2]
    assert phase.phase.stream == "labelled"
    batch = run.data.draw("labelled", 0)
    assert int(batch.y.max()) < 10
    assert len(batch.y) == 20


def test_reconstruction_compares_with_the_clean_image() -> None:
    run = experiment("network.corruption.noise=3")
    batch = run.data.draw("all", 0)
    with torch.no_grad():
        codes = run.phases[0].phase.codes(batch)
        decoded = run.model.decode({name: code.value for name, code in codes.items()})
        terms = run.phases[0].updates[0].loss(batch, codes)
    expected = 0.5 * (decoded - batch.x).square().sum() / len(batch.x)
    assert float(terms["reconstruction"]) == pytest.approx(float(expected), rel=1e-5)


def test_training_forwards_leave_batch_norm_statistics_alone_and_evaluation_measures_them() -> None:
    run = experiment("network.corruption.noise=0.5")
    layer = next(module for module in run.model.modules() if isinstance(module, nn.BatchNorm1d))
    assert layer.running_mean is not None
    run.step(0)
    assert float(layer.running_mean.abs().sum()) == 0
    run.look("valid", None)
    first = run.model.encoder.get_submodule("1")
    with torch.no_grad():
        clean = first(
            (run.data.train.x.float() / 255).flatten(1)
        )  # all 1000 digits, as the calibration saw them
    measured = layer.running_mean.clone()
    assert torch.allclose(measured, clean.mean(0), atol=1e-5)
    run.step(1)
    assert torch.equal(layer.running_mean, measured)


def test_a_network_of_ones_own_may_have_batch_norm_without_statistics() -> None:
    run = experiment()
    run.model.encoder.add_module("last", nn.BatchNorm1d(16, track_running_stats=False))
    run.look("valid", None)


def test_calibration_weighs_every_image_alike_when_the_last_batch_would_be_short() -> None:
    images = Images(torch.zeros(1001, 1, 1, 1, dtype=torch.uint8), torch.zeros(1001).long())
    sizes = [len(x) for x, _ in images.batches(1000)]
    assert sizes == [501, 500]


def test_a_bernoulli_likelihood_needs_pixels_from_0_to_1() -> None:
    with pytest.raises(ConfigError, match=r"phases\.elbo.*network\.output=sigmoid"):
        experiment("variant=vae", "network.output=linear")
    experiment("variant=vae", "network.output=linear", "phases.elbo.likelihood=gaussian")


def test_the_saved_weights_are_calibrated_even_if_nothing_is_evaluated() -> None:
    none = (f"evaluators.{name}=null" for name in composed().evaluators)
    run = experiment(*none)
    run.look("test", None)
    assert any(
        float(buffer.abs().sum()) for name, buffer in run.model.named_buffers() if "running_mean" in name
    )


def test_looking_at_a_model_does_not_change_how_it_trains() -> None:
    plain, watched = experiment(), experiment()
    for step in range(6):
        plain.step(step)
        watched.step(step)
        if step == 3:
            watched.look("valid", None)
    for one, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_and_start_say_when_a_phase_runs() -> None:
    run = experiment("+schedule.phases.classification.every=3", "+schedule.phases.classification.start=0.5")
    active = [step for step in range(15) if run.phases[2].active(step)]
    assert active == [6, 9, 12]  # an epoch has 10 steps


def test_decays_reach_the_stated_factors() -> None:
    assert decay_factor(None, 100, 10)(99) == 1
    assert decay_factor("linear", 100, 10)(25) == pytest.approx(0.75)
    assert decay_factor("cosine", 100, 10)(50) == pytest.approx(0.5)
    steps = decay_factor([(5, 0.1), (8, 0.5)], 100, 10)
    assert [steps(step) for step in (49, 50, 80)] == pytest.approx([1, 0.1, 0.05])


def test_a_phase_that_the_schedule_does_not_name_uses_the_default_optimizer() -> None:
    run = experiment("~schedule.phases.classification", "schedule.default.lr=0.125")
    assert run.phases[2].updates[0].optimizer.param_groups[0]["lr"] == 0.125


def test_the_paper_schedule_has_the_rates_and_momenta_of_section_5() -> None:
    run = experiment("schedule=paper")
    found = {
        update.name: (update.optimizer.param_groups[0]["lr"], update.optimizer.param_groups[0]["momentum"])
        for phase in run.phases
        for update in phase.updates
    }
    assert found == {
        "reconstruction/autoencoder": (0.01, 0.9),
        "regularization/discriminator": (0.1, 0.1),
        "regularization/generator": (0.1, 0.1),
        "classification/classifier": (0.1, 0.9),
    }


def test_the_automatic_precision_is_exact_and_evaluation_is_always_at_the_highest() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        assert choose_precision("auto", torch.device("cpu"))[1] < EXACT
        assert choose_precision("high", torch.device("cpu"))[0] == "high"
        run = experiment("precision=medium")
        used: list[str] = []
        run.model.encoder.register_forward_hook(lambda *_: used.append(torch.get_float32_matmul_precision()))
        run.look("valid", None)
        run.step(0)
        assert set(used[:-3]) == {"highest"}
        assert set(used[-3:]) == {"medium"}
    finally:
        torch.set_float32_matmul_precision(before)


def test_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (build_parts(composed(f"seed={seed}"), Builder()).model for seed in (0, 0, 1))
    first, again, different = (next(model.parameters()) for model in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, different)


def test_the_encoder_is_pulled_towards_its_prior() -> None:
    """On real digits: after a little training the codes have about the spread of the prior."""
    wide = (f"network.{part}.width=64" for part in ("encoder", "decoder", "discriminator"))
    run = experiment(*wide, "variant=basic", "prior=gaussian_wide", "schedule.epochs=100")
    losses = [run.step(step) for step in range(600)]
    with torch.no_grad():
        z = run.model.encode(run.data.train.x.float() / 255, run.data.train.y)["style"].value
    assert 2.5 < float(z.std()) < 10  # the prior's is 5; untrained codes have about 0.3
    assert losses[-1]["loss/reconstruction"] < 0.8 * losses[0]["loss/reconstruction"]
