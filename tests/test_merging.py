"""Clusters that are taken out while training goes on."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, experiment
from matplotlib.figure import Figure

import aae_runner
from aae_runner.errors import ConfigError
from aae_runner.experiment import Experiment
from aae_runner.latents import GONE
from aae_runner.merging import least_needed
from aae_runner.priors import Categorical

FOUR = (
    "variant=clustering", "heads.label.size=9",
    "+phase@phases.merging=merging", "phases.merging.keep=4",
)  # fmt: skip
"""Nine clusters, of which four stay."""


def left(run: Experiment) -> list[int]:
    return run.model.classes("label")


def trained(*overrides: str, steps: Sequence[int]) -> Experiment:
    run = experiment(*FOUR, *overrides)
    for step in steps:
        run.step(step)
    return run


def test_the_prior_of_y_is_uniform_on_the_clusters_that_are_left() -> None:
    torch.manual_seed(0)
    prior, there = Categorical(7), torch.tensor([1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)
    prior.follow(lambda: there)
    frequencies = prior.sample(40_000).mean(0)
    # a frequency's standard deviation is (p (1 - p) / n)^(1/2) = 0.0022
    torch.testing.assert_close(frequencies, there / 4, atol=0.01, rtol=0)
    assert frequencies[~there].sum() == 0
    there[0] = False
    assert prior.sample(1000)[:, 0].sum() == 0


def test_the_cluster_goes_whose_images_have_an_obvious_second_choice() -> None:
    sure = torch.eye(5).repeat_interleave(20, dim=0) * 12.0
    sure[60:80, 1] = 6.0  # were there no 3, all of its images would be in 1
    there = torch.ones(5, dtype=torch.bool)
    assert least_needed(sure, there) == 3
    there[3] = False
    sure[:20, 4] = 3.0  # next best: 0, for 4
    assert least_needed(sure.masked_fill(~there, GONE), there) == 0


def test_one_cluster_goes_at_a_time_until_as_many_are_left_as_are_wanted() -> None:
    run = experiment(*FOUR, "+schedule.phases.merging={start: 0.2, every: 2}")
    counts = []
    for step in range(16):
        run.step(step)
        counts.append(len(left(run)))
    start = run.phases[-1].first
    gone = [sum(step >= turn for turn in range(start, start + 10, 2)) for step in range(16)]
    assert counts == [9 - n for n in gone]
    codes = run.model.infer(run.data.draw("all", 99).x_in, run.data.draw("all", 99).y)
    assert set(codes["label"].value.argmax(1).tolist()) <= set(left(run))
    assert set(run.priors["label"].sample(500).argmax(1).tolist()) == set(left(run))


def test_an_interrupted_run_loses_the_same_clusters() -> None:
    whole = trained(steps=range(8))
    resumed = experiment(*FOUR)
    resumed.load(trained(steps=range(3)).state())
    for step in range(3, 8):
        resumed.step(step)
    assert left(resumed) == left(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_finished_run_has_the_clusters_that_it_kept_and_no_others(tmp_path: Path, command: Command) -> None:
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


def test_the_heads_of_clusters_that_went_are_not_drawn() -> None:
    run = trained("variant=dim_reduction_unsupervised", "phases.merging.keep=6", steps=range(5))
    figure = run.look("valid", None)["representation"]
    assert isinstance(figure, Figure)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert drawn == {str(k) for k in left(run)}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["phases.merging.keep=10"], "must be categorical, of size 10 or more"),
        (["phases.merging.head=style"], "must be categorical"),
        (
            ["variant=semi_supervised", "heads.label.size=12"],
            "phases.classification: a class that it teaches may be taken out",
        ),
        (["~priors.label"], "must have a prior, aae_runner.priors.Categorical"),
        (["+schedule.phases.merging.every=400"], "must run 5 times, and the run ends after 1"),
        (["+schedule.phases.merging.optimizer.lr=1"], "is no update of this phase"),
    ],
)
def test_what_cannot_shrink_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(*FOUR, "schedule.epochs=20", *overrides)


def test_nothing_is_looked_at_between_turns_and_nothing_once_all_are_gone() -> None:
    run = experiment(*FOUR, "+schedule.phases.merging.every=2")
    forwards = []
    run.model.encoder.register_forward_hook(lambda module, given, out: forwards.append(len(out)))
    for step in range(14):
        run.step(step)
    looks = len(forwards) - 2 * 14
    images = len(run.data.train)
    assert looks == 5 * -(-images // 1000)
