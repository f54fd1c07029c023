"""Metrics against definitions, and figures against what they must show."""

import torch
from conftest import experiment
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

from aae_runner.data import Images
from aae_runner.evaluators import error_rate, nearest_neighbor_error
from aae_runner.figures import pictures


def test_the_error_rate_counts_wrong_arguments_of_the_maximum() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [0.0, 1.0]])
    assert error_rate(logits, torch.tensor([0, 1, 1, 0])) == 0.5


def test_the_error_rate_tells_apart_logits_whose_softmax_is_equal_in_float32() -> None:
    logits = torch.tensor([[200.0, 150.0, 201.0]])
    assert error_rate(logits, torch.tensor([2])) == 0.0


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
    likelihood = {"log_likelihood", "log_likelihood_standard_error", "parzen_sigma"}
    measures = {"coverage", "mass_error", "outside", "sliced_wasserstein", "squared_mmd"}
    match = measures | {f"{name}_reference" for name in measures}
    assert set(found["basic"]) == basic | likelihood | match
    more = {"error_rate", "nearest_neighbor_error_rate", "style_grid"}
    assert set(found["semi_supervised"]) == basic | more
    assert all(isinstance(value, float | Figure) for one in found.values() for value in one.values())


def test_evaluation_is_a_function_of_the_model_alone() -> None:
    run = experiment()
    once, twice = run.look("valid", 10), run.look("valid", 10)
    assert once["error_rate"] == twice["error_rate"]


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
