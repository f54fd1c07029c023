"""Metrics against definitions, and figures against what they must show."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Run, composed, experiment
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from aae_runner.build import Builder
from aae_runner.data import Images
from aae_runner.errors import ConfigError, NumericalError
from aae_runner.evaluators import (
    ClusterGallery,
    Evaluator,
    Findings,
    Projection,
    Snapshot,
    Source,
    error_rate,
    nearest_neighbor_error,
    own_part_rate,
)
from aae_runner.experiment import evaluate
from aae_runner.figures import Map, confusion, latent_maps, pictures, representation, tables
from aae_runner.parts import build_parts
from aae_runner.priors import GaussianMixture, SwissRoll


def test_the_error_rate_counts_wrong_arguments_of_the_maximum() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [0.0, 1.0]])
    assert error_rate(logits, torch.tensor([0, 1, 1, 0])) == 0.5


def test_the_error_rate_tells_apart_logits_whose_softmax_is_equal_in_float32() -> None:
    logits = torch.tensor([[200.0, 150.0, 201.0]])
    assert error_rate(logits, torch.tensor([2])) == 0.0


@pytest.mark.parametrize("evaluator", ["error_rate", "cluster_error"])
def test_a_label_that_the_model_is_told_is_not_measured_as_if_inferred(evaluator: str) -> None:
    with pytest.raises(ConfigError, match="must be categorical"):
        experiment("variant=supervised", f"+evaluator@evaluators.{evaluator}={evaluator}")


def test_as_many_reconstructions_are_drawn_as_are_asked_for() -> None:
    count = 290  # more than are encoded at a time
    run = experiment("variant=basic", f"evaluators.reconstructions.count={count}")
    figure = run.look("valid", None)["reconstructions"]
    assert isinstance(figure, Figure)
    (table,) = figure.axes[0].images
    assert table.get_size()[1] // count >= 8


def test_the_nearest_neighbor_error_is_that_of_scikit_learn() -> None:
    data = experiment("data.labels=60").data
    reference = KNeighborsClassifier(1).fit(data.labelled.x.flatten(1), data.labelled.y)
    expected = 1 - reference.score(data.test.x.flatten(1), data.test.y)
    assert abs(nearest_neighbor_error(data.test, data.labelled) - expected) < 1e-9


def test_the_nearest_neighbor_of_an_image_in_the_labelled_set_is_itself() -> None:
    data = experiment("data.labels=all").data
    assert nearest_neighbor_error(data.train, data.labelled) == 0.0


def test_each_variant_finds_its_figures_and_metrics_on_the_test_split() -> None:
    found = {
        variant: experiment(f"variant={variant}").look("test", None)
        for variant in ("basic", "semi_supervised")
    }
    basic = {"reconstruction_error", "reconstructions", "samples", "latent_map"}
    more = {"manifold", "linear_probe_accuracy", "knn_probe_accuracy"}
    likelihood = {"log_likelihood", "log_likelihood_standard_error", "parzen_sigma"}
    measures = {"coverage", "mass_error", "outside", "sliced_wasserstein", "squared_mmd"}
    match = measures | {f"{name}_reference" for name in measures}
    assert set(found["basic"]) == basic | more | likelihood | match | {"codes"}
    more = {"error_rate", "nearest_neighbor_error_rate", "style_grid", "confusion", "codes"}
    assert set(found["semi_supervised"]) == basic | more
    kinds = float | Figure | Projection
    assert all(isinstance(value, kinds) for one in found.values() for value in one.values())


class Numbers(Evaluator):
    def __call__(self, snapshot: Snapshot) -> Findings:
        return {"whole": 3, "narrow": np.float32(0.5), "held": torch.tensor(2.0)}  # type: ignore[dict-item]


def test_an_evaluator_may_return_numbers_of_any_kind_and_a_second_one_gets_its_key_before_its_names() -> None:
    run = experiment()
    snapshot = Snapshot(run.model, run.priors, run.data, "valid")
    found = {"whole": 3.0, "narrow": 0.5, "held": 2.0}
    assert evaluate({"one": Numbers(1)}, snapshot, 0) == found
    both = evaluate({"one": Numbers(1), "other": Numbers(1)}, snapshot, 0)
    assert both == found | {f"other_{name}": value for name, value in found.items()}


def test_of_pictures_too_large_for_the_projector_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aae_runner.evaluators.snapshot.AT_ONCE", 10)  # values; a digit has 64
    run = experiment()
    assert len(Snapshot(run.model, run.priors, run.data, "valid").projection().pictures) == 1


def test_codes_that_are_not_finite_are_told_before_anything_is_drawn_of_them() -> None:
    run = experiment()
    with torch.no_grad():
        next(run.model.heads["style"].parameters()).fill_(torch.nan)
    with pytest.raises(NumericalError, match="codes of the head style are not finite"):
        run.look("valid", 10)


def test_what_an_evaluator_finds_is_a_function_of_the_model_alone_whoever_looks_before() -> None:
    run = experiment("variant=basic", "evaluators.log_likelihood.samples=1000")
    once, twice = run.look("test", None), run.look("test", None)
    numbers = {name: value for name, value in once.items() if isinstance(value, float)}
    assert "squared_mmd" in numbers  # one that draws
    assert {name: twice[name] for name in numbers} == numbers
    snapshot = Snapshot(run.model.eval(), run.priors, run.data, "test")
    alone = evaluate({"prior_match": run.evaluators["prior_match"]}, snapshot, run.config.seed)
    assert {name: numbers[name] for name in alone} == alone


def test_codes_that_are_drawn_are_those_of_training_whoever_looks_first() -> None:
    noisy = "variant=basic", "head@heads.style=universal_approximator", "heads.style.size=2"
    run = experiment(*noisy, "evaluators.log_likelihood.samples=1000")
    numbers = run.look("test", None)
    for names in (["reconstructions"], ["prior_match", "reconstructions"]):
        snapshot = Snapshot(run.model.eval(), run.priors, run.data, "test")
        alone = evaluate({name: run.evaluators[name] for name in names}, snapshot, run.config.seed)
        assert alone["reconstruction_error"] == numbers["reconstruction_error"]


def test_an_untrained_classifier_is_wrong_about_nine_times_in_ten() -> None:
    rate = experiment().look("test", None)["error_rate"]
    assert isinstance(rate, float)
    assert 0.7 < rate < 1


def test_a_table_of_pictures_shows_each_in_its_place_and_clips_what_is_out_of_range() -> None:
    rows = torch.zeros(2, 3, 1, 4, 4)
    rows[1, 2] = 7.0
    shown = pictures(rows, "title").axes[0].images[0].get_array()
    assert shown is not None
    assert shown.max() == 1
    assert (shown[6:10, 11:15] == 1).all()  # a tile of 4 pixels after each gap of 1
    assert (shown[1:5, 1:5] == 0).all()


def test_color_pictures_stay_in_color() -> None:
    rows = torch.zeros(1, 1, 3, 4, 4)
    rows[0, 0, 0] = 1.0
    shown = pictures(rows, "title").axes[0].images[0].get_array()
    assert shown is not None
    assert shown[2, 2].tolist() == [1, 0, 0]


def test_images_come_back_in_order_and_scaled() -> None:
    images = Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1) * 25, torch.zeros(10).long())
    assert torch.equal(torch.cat([x for x, _ in images.batches(3)]).flatten() * 255, torch.arange(10.0) * 25)


def test_own_part_rate_of_mixture_samples_is_that_of_the_angle_between_components() -> None:
    torch.manual_seed(0)
    prior = GaussianMixture(None, components=10, radius=9.0, radial_std=0.6, tangential_std=0.6)
    y = torch.arange(100_000) % 10
    z = prior.sample(len(y), y)
    # round components far out: nearly always right, unless z crosses one of two lines at 18 degrees
    wrong = 2 * stats.norm.sf(9 * math.sin(math.pi / 10) / 0.6)
    assert abs(own_part_rate(z, y, prior) - (1 - wrong)) < 5e-4
    assert abs(own_part_rate(z, y.roll(1), prior)) < 1e-3
    assert abs(own_part_rate(z, y[torch.randperm(len(y))], prior) - 0.1) < 0.005


def test_own_part_rate_of_the_roll_without_noise_is_one() -> None:
    prior = SwissRoll(None, turns=2.25, segments=10, std=0.3)
    u = (torch.arange(500) + 0.5) / 500
    assert own_part_rate(prior.point(u), (u * 10).long(), prior) == 1


def constructed(folder: Path) -> Path:
    """Images of 4x4 pixels: the class says which pixel of the first column is lit; the style, two numbers
    independent of it, how gray the last two columns are: as many numbers as z has."""
    random = np.random.default_rng(0)
    for part, n in (("train", 1200), ("test", 500)):
        y = random.integers(0, 4, n)
        images = np.zeros((n, 4, 4), dtype=np.uint8)
        images[np.arange(n), y, 0] = 255
        images[:, :, 2:] = random.integers(0, 256, (n, 1, 2))
        np.savez(folder / f"{part}.npz", images=images, labels=y)
    return folder


def test_the_style_of_a_supervised_model_carries_no_label_and_that_of_a_basic_one_does(
    tmp_path: Path,
) -> None:
    where = f"data.root={constructed(tmp_path)}"
    data = ("data=arrays", where, "data.shape=[1,4,4]", "data.classes=4", "data.labels=all")
    accuracies: dict[str, list[float]] = {}
    for variant in ("supervised", "basic"):
        run = experiment(
            *data, f"variant={variant}", "heads.style.size=2", "prior=gaussian", "network.encoder.width=64",
            "network.decoder.width=64", "network.discriminator.width=64", "schedule.batch=50",
        )  # fmt: skip
        for step in range(600):
            run.step(step)
        found = run.look("test", None)
        rates = [found["linear_probe_accuracy"], found["knn_probe_accuracy"]]
        accuracies[variant] = [rate for rate in rates if isinstance(rate, float)]
    assert max(accuracies["supervised"]) < 0.4  # chance is 0.25
    assert min(accuracies["basic"]) > 0.8


def test_a_representation_of_one_dimension_is_refused_before_anything_is_learned() -> None:
    with pytest.raises(ConfigError, match="a representation needs a z of 2 dimensions or more"):
        experiment("variant=dim_reduction_unsupervised", "heads.style.size=1")


def test_samples_of_q_have_its_own_deviation_and_are_asked_of_a_gaussian_head_alone() -> None:
    run = experiment("variant=vae")
    snapshot = Snapshot(run.model.eval(), run.priors, run.data, "test")
    with torch.no_grad():
        means = Source(run.model, run.priors, "style").codes(snapshot)
        sampled = Source(run.model, run.priors, "style", sampled=True).codes(snapshot)
        std = (0.5 * snapshot.parameters["style"].chunk(2, dim=1)[1]).exp()
    assert stats.kstest(((sampled - means) / std).flatten().numpy(), "norm").pvalue > 0.001
    deterministic = experiment("variant=basic")
    with pytest.raises(ConfigError, match="not Gaussian"):
        Source(deterministic.model, deterministic.priors, "style", sampled=True)


def test_maps_side_by_side_have_common_axes_and_one_legend() -> None:
    torch.manual_seed(0)
    y, names = torch.arange(50) % 3, ("cat", "dog", "ox")
    maps = [Map(str(s), s * torch.randn(50, 2), y, names, torch.randn(5000, 2)) for s in (1, 9)]
    figure = latent_maps(maps)
    assert len({axes.get_xlim() for axes in figure.axes} | {axes.get_ylim() for axes in figure.axes}) == 1
    assert [axes.get_title() for axes in figure.axes] == ["1", "9"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "dog", "ox"]


def test_the_legend_of_maps_of_two_data_sets_has_the_names_of_both() -> None:
    torch.manual_seed(0)
    maps = [
        Map("", torch.randn(50, 2), torch.arange(50) % len(names), names, torch.randn(5000, 2))
        for names in (("up", "down"), ("0", "down", "2"))
    ]
    assert [text.get_text() for text in latent_maps(maps).legends[0].get_texts()] == ["up / 0", "down", "2"]


def test_the_title_of_a_map_stands_above_its_axes_and_beside_nothing_else(run: Run) -> None:
    opened = run("semi_supervised")  # the first two of ten dimensions, which makes it long
    figure = opened.evaluate()["latent_map"]
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    place, below = figure.axes[0].title.get_window_extent(), figure.axes[0].bbox
    assert below.x0 < place.x0 < place.x1 < below.x1


@pytest.mark.parametrize("prior", ["gaussian_wide", "gaussian_mixture", "swiss_roll"])
def test_no_contour_of_a_prior_is_cut_off_by_its_axes(prior: str) -> None:
    torch.manual_seed(0)
    parts = build_parts(composed("variant=basic", f"prior={prior}", *TINY), Builder())
    samples = parts.priors["style"].sample(200_000)
    (axes,) = latent_maps([Map("", samples[:100], torch.zeros(100).long(), ["0"], samples)]).axes
    (contours,) = [one for one in axes.collections if isinstance(one, QuadContourSet)]
    reach = axes.get_xlim()[1]
    drawn = [np.abs(np.asarray(path.vertices)).max(initial=0.0) for path in contours.get_paths()]
    assert 0 < max(drawn) < reach


def test_no_code_lies_outside_of_its_map_however_far_it_strayed() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(5000, 2), torch.zeros(5000).long()
    z[7] = torch.tensor([3.0, -40.0])
    for figure in (
        latent_maps([Map("", z, y, ["0"], torch.randn(5000, 2))]),
        representation(z, y, dict(enumerate(torch.randn(3, 2))), names="0", title=""),
    ):
        low, high = figure.axes[0].get_ylim()
        assert low < -40 < 40 < high


def test_dimensions_that_are_not_shown_do_not_widen_a_map() -> None:
    torch.manual_seed(0)
    z, prior = torch.randn(500, 5), torch.randn(5000, 5)
    figures = []
    for scale in (1, 100):
        wide = torch.tensor([1, 1, scale, scale, scale])
        figures.append(latent_maps([Map("", z * wide, torch.zeros(500).long(), ["0"], prior * wide)]))
    assert figures[0].axes[0].get_ylim() == figures[1].axes[0].get_ylim()


def test_a_map_of_three_dimensions_shows_each_pair_and_the_space() -> None:
    torch.manual_seed(0)
    one = Map("three", torch.randn(50, 3), torch.arange(50) % 3, "012", torch.randn(5000, 3))
    assert len(latent_maps([one]).axes) == 4
    assert (
        len(representation(one.z, one.y, dict(enumerate(torch.randn(3, 3))), names="012", title="heads").axes)
        == 1
    )


def test_tables_stand_five_in_a_row_each_under_its_name() -> None:
    figure = tables({f"component {k}": torch.rand(2, 3, 1, 4, 4) for k in range(7)}, "walks")
    assert [axes.get_title() for axes in figure.axes] == [f"component {k}" for k in range(7)]
    figure.draw_without_rendering()
    assert len({round(axes.get_position().y1, 3) for axes in figure.axes}) == 2


def test_a_confusion_matrix_shows_the_share_of_each_class_that_is_taken_for_each() -> None:
    figure = confusion(np.array([[3, 1], [0, 5]]), ["cat", "dog"], "animals")
    (axes,) = figure.axes
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "75.0"), ((1, 0), "25.0"), ((1, 1), "100"),
    ]  # fmt: skip
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]


def test_a_confusion_matrix_has_a_column_for_outputs_that_are_no_class() -> None:
    (axes,) = confusion(np.array([[2, 1, 1, 0], [0, 3, 0, 1]]), ["a", "b"], "of four").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "none"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "25.0", "25.0", "75.0", "25.0"]


def test_names_with_dollars_are_drawn_as_they_stand() -> None:
    figure = confusion(np.eye(2, dtype=np.int64), ["a$x_$", "$\\nothing{$"], "$ and $_{")
    figure.savefig(io.BytesIO())


def test_a_cluster_without_images_shows_none() -> None:
    run = experiment("variant=clustering", "heads.label.size=250")
    snapshot = Snapshot(run.model, run.priors, run.data, "valid")
    with torch.no_grad():
        figure = ClusterGallery(run.model, run.priors, every=None)(snapshot)["cluster_gallery"]
    assert isinstance(figure, Figure)
    (picture,) = figure.axes[0].images
    canvas = np.asarray(picture.get_array())  # tiles of 8 pixels and a gap; the first column is the heads
    empty = set(range(250)) - set(snapshot.parameters["label"].argmax(1).tolist())
    assert empty
    for k in empty:
        assert canvas[1 + 9 * k : 9 + 9 * k, 10:].min() == 1.0


def test_the_title_of_a_table_of_pictures_is_not_cut_off() -> None:
    title = "Decoded samples of the prior; right: the training image nearest to the last of its row"
    for columns in (13, 3):  # in 3 there is no room for it in a line
        figure = pictures(torch.zeros(8, columns, 1, 28, 28), title, [""] * (columns - 1) + ["nearest"])
        figure.draw_without_rendering()
        texts = [*figure.texts, *(axes.title for axes in figure.axes)]
        (drawn,) = [text.get_window_extent() for text in texts if text.get_text()]
        assert drawn.y1 <= figure.bbox.y1
        assert (drawn.x0 >= 0, drawn.x1 <= figure.bbox.x1) == (True, True)
