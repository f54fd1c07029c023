"""The Parzen estimate against densities known in closed form, and against its definition in float64."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from conftest import composed, experiment
from scipy.spatial.distance import cdist
from torch import Tensor

from aae_runner import parzen
from aae_runner.build import Builder
from aae_runner.errors import ConfigError
from aae_runner.evaluators import Snapshot, distributions
from aae_runner.experiment import evaluate
from aae_runner.parts import build_parts
from aae_runner.parzen import SIGMAS, estimate, log_likelihoods


def chunks(samples: Tensor, size: int = 1000) -> Callable[[], Iterable[Tensor]]:
    return lambda: samples.split(size)


def strokes(n: int, seed: int) -> Tensor:
    """Images like MNIST's: 784 pixels of which most are black and the others mostly white."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 1, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic")
    return (4 * smooth - 3).clamp(0, 1).flatten(1)


@pytest.mark.parametrize(("dimension", "spread"), [(1, 0.2), (2, 0.3), (3, 0.3)])
def test_windows_over_samples_of_a_gaussian_estimate_its_convolution_with_the_window(
    dimension: int, spread: float
) -> None:
    # E[N(x; s, sigma²)] over s ~ N(0, spread²) is N(x; 0, spread² + sigma²)
    torch.manual_seed(0)
    samples, sigma = spread * torch.randn(200_000, dimension), 0.15
    x = spread * torch.randn(300, dimension)
    variance = spread**2 + sigma**2
    expected = -x.square().sum(1) / (2 * variance) - dimension / 2 * math.log(2 * math.pi * variance)
    found = log_likelihoods(x, samples.split(5000), [sigma])[:, 0]
    # few samples lie where an image is an outlier: its own estimate is noisier
    typical = x.norm(dim=1) < 2.5 * spread
    assert typical.sum() > 200
    assert (found - expected)[typical].abs().max() < 0.05
    assert float((found - expected).mean()) == pytest.approx(0, abs=0.01)


def test_one_sample_gives_a_gaussian_around_it() -> None:
    x, s = torch.rand(5, 784), torch.rand(1, 784)
    expected = torch.distributions.Normal(s.double(), 0.2).log_prob(x.double()).sum(1)
    assert torch.allclose(log_likelihoods(x, [s], [0.2])[:, 0], expected, atol=1e-3)


def test_the_width_is_the_best_on_validation_images_and_not_on_those_scored_or_drawn() -> None:
    torch.manual_seed(0)
    samples = 0.5 + 0.05 * torch.randn(1000, 20)
    near, far = samples + 0.05 * torch.randn(1000, 20), samples + 0.3 * torch.randn(1000, 20)
    # an image is its sample plus noise, so the best width is about that of the noise
    wide = estimate(near, far, chunks(samples))
    assert wide.sigma == pytest.approx(0.3, rel=0.15)
    narrow = estimate(far, near, chunks(samples))
    assert narrow.sigma < 0.08
    assert wide.log_likelihood == pytest.approx(
        float(log_likelihoods(near, [samples], [wide.sigma]).mean()), abs=1e-6
    )
    # by the samples themselves the narrowest would win
    assert estimate(samples, samples, chunks(samples)).sigma < SIGMAS[0] / 100


@pytest.mark.parametrize("noise", [0.004, 0.02, 2.0])
def test_a_width_beyond_the_usual_ones_is_found(noise: float) -> None:
    torch.manual_seed(0)
    samples = 10 * torch.randn(500, 40)
    x = samples + noise * torch.randn(500, 40)
    assert estimate(x, x, chunks(samples)).sigma == pytest.approx(noise, rel=0.02)


@pytest.mark.parametrize("noise", [0.15, 0.158, 0.165])
def test_on_images_of_digits_size_no_other_width_is_better_by_a_tenth_of_a_nat(noise: float) -> None:
    torch.manual_seed(0)
    samples = strokes(500, seed=2)
    x = samples + noise * torch.randn(500, 784)  # 0.158 lies half way between two of SIGMAS: 3 nats away
    found = estimate(x, x, chunks(samples))
    widths = torch.linspace(0.14, 0.18, 200).tolist()
    best = float(log_likelihoods(x, [samples], widths).mean(0).max())
    assert found.log_likelihood == pytest.approx(best, abs=0.1)


def test_mean_and_standard_error_are_those_over_the_scored_images() -> None:
    torch.manual_seed(0)
    samples, x = torch.rand(100, 10), torch.rand(50, 10)
    found = estimate(x, x, chunks(samples))
    values = log_likelihoods(x, [samples], [found.sigma])[:, 0]
    assert found.log_likelihood == pytest.approx(float(values.mean()))
    assert found.standard_error == pytest.approx(float(values.std()) / 50**0.5)


def direct(x: Tensor, samples: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The definition, in float64 and without a trick."""
    squares = torch.from_numpy(cdist(x.double().numpy(), samples.double().numpy(), "sqeuclidean"))
    constant = (
        math.log(len(samples)) + x.shape[1] * torch.tensor(sigmas).double().mul(math.sqrt(2 * math.pi)).log()
    )
    sums = torch.stack([(-squares / (2 * sigma**2)).logsumexp(1) for sigma in sigmas], dim=1)
    return sums - constant


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("noise", [0.001, 0.1])
def test_images_of_float32_score_as_in_float64_to_a_hundredth_of_a_nat_whatever_precision_is_set(
    precision: str, noise: float
) -> None:
    torch.manual_seed(0)
    samples = strokes(2000, seed=2)
    near, far = samples[:100] + noise * torch.randn(100, 784), strokes(100, seed=1)
    x, before = torch.cat([near, far]), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        found = log_likelihoods(x, samples.split(300), SIGMAS)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (found - direct(x, samples, SIGMAS)).abs().max() < 0.001


def test_neither_chunks_of_samples_nor_blocks_of_images_change_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, samples = strokes(100, seed=1), strokes(1000, seed=2)
    whole = log_likelihoods(x, [samples], SIGMAS)
    for size in (7, 999):
        assert torch.allclose(log_likelihoods(x, samples.split(size), SIGMAS), whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(parzen, "CHUNK", 9)
    assert torch.allclose(log_likelihoods(x, [samples], SIGMAS), whole, atol=1e-5, rtol=0)


def test_the_widths_are_twenty_from_a_twentieth_to_a_half_evenly_on_the_logarithmic_scale() -> None:
    expected = torch.logspace(math.log10(0.05), math.log10(0.5), 20, dtype=torch.float64)
    assert torch.allclose(torch.tensor(SIGMAS, dtype=torch.float64), expected)


def test_the_evaluator_gives_every_run_the_same_prior_samples_and_finds_the_same_twice() -> None:
    run = experiment("variant=basic", "evaluators.log_likelihood.samples=5000", "evaluators.prior_match=null",
                     "evaluators.samples=null", "evaluators.latent_map=null")  # fmt: skip
    once, twice = run.look("test", None), run.look("test", None)
    torch.manual_seed(1)
    other = evaluate({"another": run.evaluators["log_likelihood"]},
                     Snapshot(run.model.eval(), run.priors, run.data, "test"), 1)  # fmt: skip
    assert other["log_likelihood"] == once["log_likelihood"]  # whatever the seed
    for name in ("log_likelihood", "log_likelihood_standard_error", "parzen_sigma"):
        assert isinstance(once[name], float)
        assert once[name] == twice[name]
    assert isinstance(once["parzen_sigma"], float)
    assert SIGMAS[0] < once["parzen_sigma"] < SIGMAS[-1]


def test_a_label_head_is_sampled_from_its_prior_and_must_have_one() -> None:
    added = "+evaluator@evaluators.log_likelihood=log_likelihood"
    small = "evaluators.log_likelihood.samples=1000", "evaluators.samples=null", "evaluators.latent_map=null"
    assert "log_likelihood" in experiment(added, *small).look("test", None)
    with pytest.raises(ConfigError, match=r"evaluators\.log_likelihood.*prior of the head label"):
        build_parts(composed(added, *small, "priors.label=null",
                             "phases.regularization=null"), Builder())  # fmt: skip


def test_a_long_estimate_says_how_far_it_is_where_no_bar_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = experiment("variant=basic", "evaluators.log_likelihood.samples=3000")
    monkeypatch.setattr(distributions, "MINUTE", 0)
    log = logging.getLogger("aae_runner")
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "propagate", False)
    log.setLevel(logging.INFO)
    evaluate({"it": run.evaluators["log_likelihood"]},
             Snapshot(run.model.eval(), run.priors, run.data, "test"), 0)  # fmt: skip
    assert caplog.messages == [f"log-likelihood: {share} % done" for share in (33, 50, 83, 100)]
