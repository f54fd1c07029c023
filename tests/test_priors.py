"""Priors against their moments and geometry."""

import math

import pytest
import torch
from scipy import stats

from aae_runner.priors import Categorical, Gaussian, GaussianMixture, SwissRoll, Uniform

N = 200_000


def mixture() -> GaussianMixture:
    """The paper's."""
    return GaussianMixture(None, components=10, radius=9.0, radial_std=3.0, tangential_std=0.6)


@pytest.mark.parametrize("std", [1.0, 5.0])
def test_a_gaussian_has_its_std_and_is_gaussian(std: float) -> None:
    torch.manual_seed(0)
    z = Gaussian(4, std=std).sample(N)
    assert z.mean(0).abs().max() < 5 * std / math.sqrt(N)
    assert torch.allclose(torch.cov(z.T), std**2 * torch.eye(4), atol=0.02 * std**2)
    assert stats.kstest(z[:, 0].numpy() / std, "norm").pvalue > 0.001


def test_component_k_of_the_mixture_has_its_angle_radius_and_stds() -> None:
    torch.manual_seed(0)
    prior = mixture()
    for k in range(10):
        angle = 2 * math.pi * k / 10
        z = prior.sample(N // 10, labels=torch.full((N // 10,), k))
        ray = torch.tensor([math.cos(angle), math.sin(angle)])
        across = torch.tensor([-math.sin(angle), math.cos(angle)])
        assert float((z @ ray).mean()) == pytest.approx(9, abs=0.1)
        assert float((z @ ray).std()) == pytest.approx(3, rel=0.02)
        assert float((z @ across).mean()) == pytest.approx(0, abs=0.03)
        assert float((z @ across).std()) == pytest.approx(0.6, rel=0.02)


def test_the_unlabelled_mixture_has_the_moments_of_its_equal_parts() -> None:
    torch.manual_seed(0)
    z = mixture().sample(N)
    # E|z|² = radius² + radial² + tangential²; by symmetry the covariance is half of it in each direction
    second = (9**2 + 3**2 + 0.6**2) / 2
    assert torch.allclose(torch.cov(z.T), second * torch.eye(2), atol=0.02 * second)
    assert z.mean(0).abs().max() < 5 * math.sqrt(second / N)


def test_a_categorical_prior_is_one_hot_and_uniform_or_as_labelled() -> None:
    torch.manual_seed(0)
    prior = Categorical(7)
    y = prior.sample(N)
    assert torch.equal(y.sum(1), torch.ones(N))
    assert stats.chisquare(y.sum(0).numpy()).pvalue > 0.001
    labels = torch.arange(100) % 7
    assert torch.equal(prior.sample(100, labels).argmax(1), labels)


def test_a_manifold_divides_the_mass_of_a_gaussian_and_of_a_box_evenly_to_the_right_and_upwards() -> None:
    right = (torch.arange(6) + 0.5) / 6
    up = (torch.arange(4).flip(0) + 0.5) / 4
    (z,) = Gaussian(3, std=5.0).manifold(4, 6).values()
    percentiles = torch.special.ndtr(z / 5)
    box = next(iter(Uniform(3, half_width=2.0).manifold(4, 6).values())) / 4 + 0.5
    for found in (percentiles, box):
        assert torch.allclose(found[..., 0], right.expand(4, 6), atol=1e-5)
        assert torch.allclose(found[..., 1], up.view(4, 1).expand(4, 6), atol=1e-5)
        assert torch.allclose(found[..., 2], torch.tensor(0.5))  # the rest at their median


def test_the_manifold_of_the_mixture_follows_the_long_axis_of_each_component() -> None:
    parts = list(mixture().manifold(3, 5).values())
    assert len(parts) == 10
    for k, z in enumerate(parts):
        angle = 2 * math.pi * k / 10
        along = z @ torch.tensor([math.cos(angle), math.sin(angle)])
        across = z @ torch.tensor([-math.sin(angle), math.cos(angle)])
        right, up = (torch.arange(5) + 0.5) / 5, (torch.arange(3).flip(0) + 0.5) / 3
        assert torch.allclose(torch.special.ndtr((along - 9) / 3), right.expand(3, 5), atol=1e-4)
        assert torch.allclose(torch.special.ndtr(across / 0.6), up.view(3, 1).expand(3, 5), atol=1e-4)


def test_the_manifold_of_the_roll_walks_outwards_in_equal_steps_of_mass() -> None:
    (z,) = SwissRoll(None, turns=2.25, segments=10, std=0.3).manifold(8, 23).values()
    t = z.flatten(0, 1).norm(dim=1)  # the radius is t = 2 pi turns sqrt(u)
    u = (t / (4.5 * math.pi)).square()
    assert torch.allclose(u, (torch.arange(184) + 0.5) / 184, atol=1e-4)
