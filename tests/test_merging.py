"""Clusters that become one while training goes on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, experiment
from matplotlib.figure import Figure
from torch import Tensor

import aae_runner
from aae_runner.errors import ConfigError
from aae_runner.experiment import Experiment
from aae_runner.latents import Categorical as Head
from aae_runner.merging import merges
from aae_runner.priors import Categorical

FOUR = (
    "variant=clustering", "heads.label.size=9",
    "+phase@phases.merging=merging", "phases.merging.keep=4",
)  # fmt: skip
"""Nine clusters, which become four."""


def left(run: Experiment) -> list[int]:
    return run.model.classes("label")


def trained(*overrides: str, steps: Sequence[int]) -> Experiment:
    run = experiment(*FOUR, *overrides)
    for step in steps:
        run.step(step)
    return run


def test_the_prior_of_merged_clusters_is_the_sum_of_theirs() -> None:
    torch.manual_seed(0)
    prior, head = Categorical(5), Head(7, size=5)
    prior.follow(lambda: head.members)
    head.may_merge()
    head.merge(1, 4)
    head.merge(0, 1)
    frequencies = prior.sample(40_000).mean(0)
    # a frequency's standard deviation is (p (1 - p) / n)^(1/2), at most 0.0025
    torch.testing.assert_close(frequencies, torch.tensor([0.6, 0, 0.2, 0.2, 0]), atol=0.01, rtol=0)
    clusters = prior.sample(5, torch.arange(5)).argmax(1)  # what each has become
    assert clusters.tolist() == [0, 0, 2, 3, 0]


def test_a_merged_cluster_is_as_likely_as_its_parts_together() -> None:
    torch.manual_seed(0)
    head, features = Head(7, size=5), torch.randn(50, 7)
    whole = head(features, torch.zeros(50))
    head.may_merge()
    torch.testing.assert_close(head(features, torch.zeros(50)).value, whole.value)
    head.merge(1, 4)
    head.merge(0, 1)
    merged = head(features, torch.zeros(50))
    expected = torch.zeros(50, 5)
    expected[:, 0] = whole.value[:, [0, 1, 4]].sum(1)
    expected[:, 2:4] = whole.value[:, 2:4]
    torch.testing.assert_close(merged.value, expected)
    torch.testing.assert_close(merged.parameters.softmax(1), expected)


def test_how_unlikely_a_merged_cluster_is_is_not_rounded_to_never() -> None:
    torch.manual_seed(0)
    head, features = Head(7, size=5), 150 * torch.randn(50, 7)
    logits = head(features, torch.zeros(50)).parameters.log_softmax(1)
    head.may_merge()
    head.merge(1, 4)
    found = head(features, torch.zeros(50)).parameters
    assert logits[:, [1, 4]].logsumexp(1).min() < -120  # a probability that float32 takes for 0
    torch.testing.assert_close(found[:, 1], logits[:, [1, 4]].logsumexp(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 2:4], logits[:, 2:4], rtol=1e-4, atol=1e-4)


def test_a_loss_of_the_logits_moves_a_merged_cluster_as_the_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    head, features = Head(7, size=5).double(), torch.randn(50, 7, dtype=torch.float64)
    head.may_merge()
    head.merge(1, 4)
    weight = head.get_parameter("linear.weight")
    (found,) = torch.autograd.grad(head(features, torch.zeros(50)).parameters.softmax(1)[:, 1].sum(), weight)
    apart = (features @ weight.T + head.get_parameter("linear.bias")).softmax(1)
    (expected,) = torch.autograd.grad(apart[:, [1, 4]].sum(), weight)
    torch.testing.assert_close(found, expected)


def test_those_merge_that_are_confused_more_than_chance_would_have_it() -> None:
    q = torch.eye(5, dtype=torch.float64).repeat_interleave(torch.tensor([100, 100, 10, 10, 10]), dim=0)
    q[:4, 1] = 1e-6  # large ones: four of a hundred
    q[200:202, 3] = 1e-6  # small ones: two of ten
    q /= q.sum(1, keepdim=True)
    assert first_merged(q) == (2, 3)
    assert first_merged(q[:, [0, 1, 4]]) == (0, 1)
    assert first_merged(torch.eye(3, dtype=torch.float64)) == (0, 1)  # none are confused: two all the same


def first_merged(q: Tensor) -> tuple[int, int]:
    """The first two of some clusters that merge; q is (N, K)."""
    return merges(q.T @ q / len(q), keep=len(q.T) - 1)[0]


def shared(images: Mapping[tuple[int, int], int], part: float) -> Tensor:
    """q(y|x) of images of one cluster that are of another with probability `part`: how many of each pair."""
    q = torch.eye(1 + max(max(pair) for pair in images), dtype=torch.float64)
    rows = {pair: (1 - part) * q[pair[0]] + part * q[pair[1]] for pair in images}
    return torch.cat([rows[pair].expand(n, -1) for pair, n in images.items()])


def test_an_odd_small_cluster_merges_with_the_large_one_of_its_class_not_with_another_odd_one() -> None:
    q = shared({(0, 0): 1000, (1, 1): 1000, (2, 0): 20, (3, 1): 20, (2, 3): 2, (3, 2): 2}, 0.3)
    assert first_merged(q) in ((0, 2), (1, 3))


def test_a_small_cluster_that_is_in_part_of_a_large_one_does_not_merge_before_two_that_are_one() -> None:
    q = shared(
        {(0, 0): 3000, (1, 1): 3000, (2, 0): 25, (2, 1): 25, (3, 3): 100, (3, 4): 100, (4, 4): 200}, 0.5
    )
    assert first_merged(q) == (3, 4)


def test_a_cluster_without_images_merges_first() -> None:
    q = shared({(0, 0): 30, (0, 1): 9, (1, 1): 20, (3, 3): 25}, 0.5)  # none in 2
    assert 2 in first_merged(q)


def test_merging_one_by_one_is_merging_at_once() -> None:
    torch.manual_seed(0)
    q = (5 * torch.randn(500, 9, dtype=torch.float64)).softmax(1)
    members = torch.eye(9, dtype=torch.float64)
    for one, other in merges(q.T @ q / len(q), keep=3):
        left = members.any(0).nonzero().squeeze(1)
        first, second = first_merged(q @ members[:, left])
        assert (one, other) == (int(left[first]), int(left[second]))
        members[:, one] += members[:, other]
        members[:, other] = 0
    assert members.any(0).sum() == 3


def test_as_many_clusters_are_left_as_are_wanted_from_that_step_on() -> None:
    run = experiment(*FOUR, "+schedule.phases.merging.start=0.2")
    counts = []
    for step in range(run.phases[-1].first + 3):
        run.step(step)
        counts.append(len(left(run)))
    assert counts == [9] * run.phases[-1].first + [4] * 3
    codes = run.model.infer(run.data.draw("all", 99).x_in, run.data.draw("all", 99).y)
    assert set(codes["label"].value.argmax(1).tolist()) <= set(left(run))
    assert set(run.priors["label"].sample(500).argmax(1).tolist()) == set(left(run))


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_interrupted_just_before_or_after_merges_the_same_clusters(stop: int) -> None:
    third = "+schedule.phases.merging.start=0.2"
    whole = trained(third, steps=range(8))
    resumed = experiment(*FOUR, third)
    resumed.load(trained(third, steps=range(stop)).state())
    for step in range(stop, 8):
        resumed.step(step)
    assert left(resumed) == left(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_finished_run_has_the_clusters_that_are_left_and_no_others(
    tmp_path: Path, command: Command
) -> None:
    status, said = command(*FOUR, *TINY, "schedule.epochs=2", "evaluators.reconstructions=null")
    assert status == 0, said
    (path,) = Path("runs").rglob("results.json")
    run = aae_runner.open_run(path.parent)
    kept = run.labels
    assert len(kept) == 4
    assert json.loads(path.read_text())["test/clusters"] <= 4
    assert set(run.classify(run.data.test.x).tolist()) <= set(kept)
    assert set(run.draw(500)["label"].argmax(1).tolist()) == set(kept)
    gallery = run.evaluate()["cluster_gallery"]
    assert isinstance(gallery, Figure)
    assert [text.get_text() for text in gallery.axes[0].get_yticklabels()] == [str(k) for k in kept]
    assert len(run.sample(2, kept[1])) == 2
    with pytest.raises(ConfigError, match=f"Allowed: {', '.join(map(str, kept))}"):
        run.sample(2, next(k for k in range(9) if k not in kept))


def test_ten_clusters_that_are_left_of_more_are_not_taken_for_the_ten_classes() -> None:
    ten = "heads.label.size=13", "phases.merging.keep=10", "+evaluator@evaluators.style_grid=style_grid"
    run = trained(*ten, steps=[0])
    grid = run.look("valid", None)["style_grid"]
    assert isinstance(grid, Figure)
    columns = [text.get_text() for text in grid.axes[0].get_xticklabels()]
    assert columns == ["image", *map(str, left(run))] != ["image", *map(str, range(10))]


def test_the_heads_of_merged_clusters_are_drawn_once_and_repel_no_other() -> None:
    run = trained("variant=dim_reduction_unsupervised", "phases.merging.keep=6", steps=range(5))
    (phase,) = (one.phase for one in run.phases if one.name == "head_distance")
    heads = run.model.get_parameter("join.heads")
    (update,) = phase.objectives().values()
    update.loss(run.data.draw("all", 0), {})["head_distance"].backward()
    assert heads.grad is not None
    gone = [k for k in range(9) if k not in left(run)]
    assert not heads.grad[gone].any()
    assert heads.grad[left(run)].any(1).all()
    figure = run.look("valid", None)["representation"]
    assert isinstance(figure, Figure)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert drawn == {str(k) for k in left(run)}


def test_what_has_merged_merges_again_when_a_second_phase_says_so() -> None:
    run = trained(
        "+phase@phases.again=merging", "phases.again.keep=2", "+schedule.phases.again.start=1", steps=[0, 1]
    )
    before = left(run)
    run.step(run.data.steps_per_epoch)
    after = left(run)
    assert (len(before), len(after)) == (4, 2)
    assert set(after) < set(before)
    assert run.priors["label"].sample(500).any(0).nonzero().flatten().tolist() == after


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["phases.merging.keep=10"], "must be categorical, of size 10 or more"),
        (["phases.merging.head=style"], "must be categorical"),
        (
            ["variant=semi_supervised", "heads.label.size=12"],
            "phases.classification: what it teaches would merge",
        ),
        (["~priors.label"], "must have a prior, aae_runner.priors.Categorical"),
        (["+schedule.phases.merging.start=20"], "the run ends before it begins"),
        (["+schedule.phases.merging.every=2"], "it runs once"),
        (["+schedule.phases.merging.optimizer.lr=1"], "is no update of this phase"),
        (["+schedule.phases.merging.decay=cosine"], "has no learning rates"),
        (["+phases.merging.optimizer.lr=1"], "phases.merging.optimizer: this phase has no learning rates"),
    ],
)
def test_what_cannot_merge_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(*FOUR, "schedule.epochs=20", *overrides)


def test_images_are_looked_at_once() -> None:
    run = experiment(*FOUR, "+schedule.phases.merging.start=0.2")
    forwards = []
    run.model.encoder.register_forward_hook(lambda module, given, out: forwards.append(len(out)))
    for step in range(14):
        run.step(step)
    assert len(forwards) - 2 * 14 == -(-len(run.data.train) // 1000)
