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


@pytest.mark.parametrize("autocast", [False, True])
def test_images_that_are_neither_distorted_nor_shifted_stay_as_they_are(autocast: bool) -> None:
    x = torch.rand(9, 3, 28, 20)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = invariance(0, 0, 1680).changed(unlabelled(x), torch.zeros(9, 2))
    assert torch.allclose(found, x, atol=1e-5)


def spots(n: int, right: float, down: float, height: int) -> Tensor:
    """Images 41 pixels wide with one round spot, so many pixels from the middle."""
    row, column = torch.meshgrid(centered(height), centered(41), indexing="ij")
    return (
        (-((column - right).square() + (row - down).square()) / 8).exp().expand(n, 1, height, 41).contiguous()
    )


def centers(x: Tensor) -> Tensor:
    """Of each image's light, right and down of the middle, in pixels: (B, 2)."""
    row, column = torch.meshgrid(centered(x.shape[2]), centered(x.shape[3]), indexing="ij")
    return torch.stack([(x * where).sum((1, 2, 3)) for where in (column, row)], 1) / x.sum((1, 2, 3))[:, None]


def centered(n: int) -> Tensor:
    return torch.arange(float(n)) - (n - 1) / 2


@pytest.mark.parametrize("height", [41, 61])
def test_a_shift_is_uniform_up_to_its_share_of_the_images_size_along_both_axes(height: int) -> None:
    torch.manual_seed(0)
    x = spots(4000, 0, 0, height)
    moved = centers(invariance(0, 0.1, 41 * height).changed(unlabelled(x), torch.zeros(4000, 2)))
    most = torch.tensor([4.1, 0.1 * height])
    assert bool((moved.abs() <= most + 0.01).all())
    assert torch.allclose(moved.std(0), most / math.sqrt(3), rtol=0.03)
    assert float(moved.T.corrcoef()[0, 1].abs()) < 0.05


@pytest.mark.parametrize("height", [41, 61])
def test_a_distortion_is_a_linear_map_whose_four_numbers_are_uniform_and_independent(height: int) -> None:
    x = [spots(4000, right, down, height) for right, down in ((0, 0), (8, 0), (0, 8))]
    moved = []
    for images in x:
        torch.manual_seed(0)  # the same maps
        moved.append(
            centers(invariance(0.2, 0, 41 * height).changed(unlabelled(images), torch.zeros(4000, 2)))
        )
    middle, right, down = moved
    assert float(middle.abs().max()) < 0.01
    # where p lies in what comes out, (I + E) p lay in what went in
    errors = torch.linalg.inv(torch.stack([right, down], 2) / 8) - torch.eye(2)
    assert float(errors.abs().max()) < 0.2 + 0.02
    assert torch.allclose(errors.std(0), torch.full((2, 2), 0.2 / math.sqrt(3)), rtol=0.05)
    assert float((errors.flatten(1).T.corrcoef() - torch.eye(4)).abs().max()) < 0.06


@pytest.mark.parametrize("name", PHASES)
def test_its_target_is_that_of_the_clean_images_and_has_no_gradient(name: str) -> None:
    run = experiment(f"+phase@phases.{name}={name}", "schedule.batch=50")
    batch = run.data.draw("all", 0)._replace(x_in=torch.full((1, 50, 1, 8, 8), math.nan))
    scheduled = next(one for one in run.phases if one.name == name)
    logits = scheduled.phase.codes(batch)["label"].parameters
    assert bool(logits.isfinite().all())
    assert not logits.requires_grad


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
