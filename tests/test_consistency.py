"""The phases that keep q(y|x) where the image changes: against what can be computed by hand."""

import math

import pytest
import torch
from conftest import Command, experiment
from torch import Tensor, nn
from torch.nn import functional as F

from aae_runner.consistency import Invariance, VirtualAdversarial
from aae_runner.data import Batch
from aae_runner.latents import Categorical
from aae_runner.losses import divergence
from aae_runner.model import Model

PHASES = ["invariance", "virtual_adversarial"]


def classifier(pixels: int) -> Model:
    return Model(nn.Flatten(), {"label": Categorical(pixels, size=2)}, None, None, "linear")


def unlabelled(x: Tensor) -> Batch:
    return Batch(x=x, x_in=x[None], y=torch.full((len(x),), 2))


def invariance(distortion: float, shift: float, pixels: int) -> Invariance:
    return Invariance(
        classifier(pixels), {}, lambda size: nn.Linear(size, 1), distortion=distortion, shift=shift
    )


def test_the_divergence_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(2, 7, 5, dtype=torch.float64).softmax(2)
    assert torch.allclose(divergence(p.log(), q.log() + 3), (p * (p / q).log()).sum(1).mean())
    assert float(divergence(p.log(), p.log())) == 0


def test_images_that_are_neither_distorted_nor_shifted_stay_as_they_are() -> None:
    x = torch.rand(9, 3, 8, 8)
    batch = unlabelled(x)
    assert torch.allclose(invariance(0, 0, 192).changed(batch, torch.zeros(9, 2)), x, atol=1e-5)


def spots(n: int, at: float) -> Tensor:
    """Images of 41 by 41 pixels with one round spot, `at` pixels right of the middle."""
    row, column = torch.meshgrid(*2 * [torch.arange(41.0) - 20], indexing="ij")
    return (-((column - at).square() + row.square()) / 8).exp().expand(n, 1, 41, 41).contiguous()


def centers(x: Tensor) -> Tensor:
    """Of each image's light, right and down of the middle, in pixels: (B, 2)."""
    row, column = torch.meshgrid(*2 * [torch.arange(41.0) - 20], indexing="ij")
    return torch.stack([(x * where).sum((1, 2, 3)) for where in (column, row)], 1) / x.sum((1, 2, 3))[:, None]


def test_a_shift_is_uniform_up_to_its_share_of_the_images_size_along_both_axes() -> None:
    torch.manual_seed(0)
    moved = centers(invariance(0, 0.1, 1681).changed(unlabelled(spots(4000, 0)), torch.zeros(4000, 2)))
    assert float(moved.abs().max()) <= 4.1 + 0.01
    assert torch.allclose(moved.std(0), torch.full((2,), 4.1 / math.sqrt(3)), rtol=0.03)
    assert float(moved.T.corrcoef()[0, 1].abs()) < 0.05


def test_a_distortion_turns_and_stretches_about_the_middle_as_far_as_it_says() -> None:
    torch.manual_seed(0)
    middle, beside = (
        centers(invariance(0.2, 0, 1681).changed(unlabelled(spots(4000, at)), torch.zeros(4000, 2)))
        for at in (0, 10)
    )
    assert float(middle.abs().max()) < 0.01
    # the pixel at p shows what was at (I + E) p: the spot goes to the p for which that is (10, 0)
    assert float(beside[:, 0].min()) == pytest.approx(10 / 1.2, abs=0.5)
    assert float(beside[:, 0].max()) == pytest.approx(10 / 0.8, abs=0.5)
    turns = torch.atan2(beside[:, 1], beside[:, 0]).rad2deg()
    assert float(turns.abs().max()) == pytest.approx(math.degrees(math.atan(0.2 / 0.8)), abs=0.7)
    assert float(turns.mean()) == pytest.approx(0, abs=0.5)


def test_the_worst_place_of_a_linear_classifier_lies_straight_across_its_boundary() -> None:
    """With two classes the divergence is a function of (w_1 - w_2) x alone."""
    torch.manual_seed(0)
    model = classifier(12)
    phase = VirtualAdversarial(model, {}, lambda size: nn.Linear(size, 1), distance=2.0, probe=0.01)
    batch = unlabelled(torch.rand(9, 1, 3, 4))
    step = (phase.changed(batch, phase.codes(batch)["label"].parameters) - batch.x).flatten(1)
    weight: Tensor = next(model.heads["label"].parameters())
    across = F.normalize(weight[0] - weight[1], dim=0)
    assert torch.allclose(step.norm(dim=1), torch.full((9,), 2.0))
    assert torch.allclose((step @ across).abs(), torch.full((9,), 2.0), atol=1e-3)


@pytest.mark.parametrize("name", PHASES)
def test_it_moves_the_encoder_and_the_label_head_and_makes_labels_steadier(name: str) -> None:
    run = experiment(f"+phase@phases.{name}={name}", "schedule.batch=100", "network.corruption.noise=0")
    scheduled = next(one for one in run.phases if one.name == name)
    before = {key: tensor.clone() for key, tensor in run.model.named_parameters()}
    batch = run.data.draw("all", 0)
    first, *_, last = (float(scheduled.run({"all": batch})[f"loss/{name}"]) for _ in range(60))
    assert last < 0.6 * first
    moved = {key for key, tensor in run.model.named_parameters() if not torch.equal(tensor, before[key])}
    assert moved == {key for key in before if key.startswith(("encoder", "heads.label"))}


@pytest.mark.parametrize(("name", "forwards"), [("invariance", 2), ("virtual_adversarial", 3)])
def test_it_encodes_the_images_once_and_each_changed_one_once(name: str, forwards: int) -> None:
    run = experiment(f"+phase@phases.{name}={name}", "schedule.batch=50")
    seen: list[int] = []
    run.model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    scheduled = next(one for one in run.phases if one.name == name)
    scheduled.run({"all": run.data.draw("all", 0)})
    assert seen == forwards * [50]


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("wrong", ["style", "lable"])
def test_a_head_that_is_no_distribution_over_classes_is_refused(
    command: Command, name: str, wrong: str
) -> None:
    status, said = command(f"+phase@phases.{name}={name}", f"phases.{name}.head={wrong}")
    assert status == 2
    assert f"phases.{name}" in said
    assert wrong in said
