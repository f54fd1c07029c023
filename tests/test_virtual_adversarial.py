"""Virtual adversarial training: against what can be computed by hand."""

import pytest
import torch
from conftest import Command, experiment
from torch import Tensor, nn
from torch.nn import functional as F

from aae_runner.data import Batch
from aae_runner.latents import Categorical
from aae_runner.losses import divergence
from aae_runner.model import Model
from aae_runner.virtual_adversarial import VirtualAdversarial

ADDED = "+phase@phases.virtual_adversarial=virtual_adversarial"


def test_the_divergence_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(2, 7, 5, dtype=torch.float64).softmax(2)
    assert torch.allclose(divergence(p.log(), q.log() + 3), (p * (p / q).log()).sum(1).mean())
    assert float(divergence(p.log(), p.log())) == 0


def test_the_worst_place_of_a_linear_classifier_lies_straight_across_its_boundary() -> None:
    """With two classes the divergence is a function of (w_1 - w_2) x alone."""
    torch.manual_seed(0)
    head = Categorical(12, size=2)
    phase = VirtualAdversarial(
        Model(nn.Flatten(), {"label": head}, None, None, "linear"), {}, lambda size: nn.Linear(size, 1),
        distance=2.0, probe=0.01,
    )  # fmt: skip
    x = torch.rand(9, 1, 3, 4)
    batch = Batch(x=x, x_in=x[None], y=torch.full((9,), 2))
    found = phase.worst(batch, phase.codes(batch)["label"].parameters).flatten(1)
    weight: Tensor = next(head.parameters())
    across = F.normalize(weight[0] - weight[1], dim=0)
    assert torch.allclose(found.norm(dim=1), torch.full((9,), 2.0))
    assert torch.allclose((found @ across).abs(), torch.full((9,), 2.0), atol=1e-3)


def test_it_moves_the_encoder_and_the_label_head_and_makes_labels_steadier() -> None:
    run = experiment(ADDED, "schedule.batch=100", "network.corruption.noise=0")
    scheduled = next(one for one in run.phases if one.name == "virtual_adversarial")
    before = {name: tensor.clone() for name, tensor in run.model.named_parameters()}
    batch = run.data.draw("all", 0)
    first, *_, last = (float(scheduled.run({"all": batch})["loss/virtual_adversarial"]) for _ in range(60))
    assert last < 0.6 * first
    moved = {name for name, tensor in run.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith(("encoder", "heads.label"))}


def test_it_encodes_the_images_themselves_a_random_place_near_them_and_the_worst_one() -> None:
    run = experiment(ADDED, "schedule.batch=50")
    seen: list[int] = []
    run.model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    scheduled = next(one for one in run.phases if one.name == "virtual_adversarial")
    scheduled.run({"all": run.data.draw("all", 0)})
    assert seen == [50, 50, 50]


@pytest.mark.parametrize("wrong", ["style", "lable"])
def test_a_head_that_is_no_distribution_over_classes_is_refused(command: Command, wrong: str) -> None:
    status, said = command(ADDED, f"phases.virtual_adversarial.head={wrong}")
    assert status == 2
    assert "phases.virtual_adversarial" in said
    assert wrong in said
