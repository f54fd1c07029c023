"""Measures of q(z) against p(z), where their values are known."""

import math

import pytest
import torch
from conftest import composed, experiment
from scipy import stats
from torch import Tensor

from aae_runner.build import Builder
from aae_runner.errors import ConfigError
from aae_runner.parts import build_parts
from aae_runner.prior_match import (
    coverage,
    fixed_directions,
    mass_error,
    median_cells,
    median_distance,
    outside,
    prior_match,
    sliced_wasserstein,
    squared_mmd,
)
from aae_runner.priors import Gaussian, GaussianMixture, Prior, SwissRoll

PRIORS: dict[str, Prior] = {
    "gaussian": Gaussian(2, std=5.0),
    "gaussian in 3-D": Gaussian(3, std=1.0),
    "mixture": GaussianMixture(None, components=10, radius=9.0, radial_std=3.0, tangential_std=0.6),
    "swiss roll": SwissRoll(None, turns=2.25, segments=10, std=0.3),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", PRIORS)
def test_cells_hold_equal_shares_of_the_samples_that_cut_them_and_of_fresh_ones(name: str) -> None:
    samples = PRIORS[name].sample(2**16)
    cells = median_cells(samples, 64)
    assert (cells.counts(samples) == 2**10).all()
    fresh = cells.counts(PRIORS[name].sample(2**16))
    # both the cells and the counts are of 2^16 samples: twice the variance of a multinomial
    statistic = float(((fresh - 2**10) ** 2 / (2 * 2**10)).sum())
    assert stats.chi2(63).sf(statistic) > 0.001


@pytest.mark.parametrize(("n", "m"), [(300, 256), (1000, 1024), (4096, 512)])
def test_coverage_and_mass_error_of_a_fresh_sample_are_those_of_throwing_balls_into_boxes(
    n: int, m: int
) -> None:
    prior = Gaussian(2, std=1.0)
    cells = median_cells(prior.sample(2**18), m)
    counts = [cells.counts(prior.sample(n)) for _ in range(40)]
    expected_coverage = 1 - (1 - 1 / m) ** n
    covered = torch.tensor([coverage(one) for one in counts])
    assert float(covered.mean()) == pytest.approx(expected_coverage, abs=0.005)
    k = torch.arange(n + 1).numpy()
    expected_error = 0.5 * m * float((stats.binom(n, 1 / m).pmf(k) * abs(k / n - 1 / m)).sum())
    errors = torch.tensor([mass_error(one) for one in counts])
    assert float(errors.mean()) == pytest.approx(expected_error, abs=0.005)


def test_mass_error_and_coverage_of_counts_that_one_can_count() -> None:
    assert mass_error(torch.tensor([5, 5, 5, 5])) == 0
    assert mass_error(torch.tensor([20, 0, 0, 0])) == 0.75
    assert coverage(torch.tensor([20, 0, 0, 1])) == 0.5


def punctured(z: Tensor) -> Tensor:
    """Without the tenth of them that is nearest to the origin."""
    return z[z.norm(dim=1) > z.norm(dim=1).quantile(0.1)]


def test_a_hole_costs_its_share_of_coverage_and_of_mass() -> None:
    prior = Gaussian(2, std=1.0)
    cells = median_cells(prior.sample(2**18), 1024)
    whole, holed = (cells.counts(z) for z in (prior.sample(20_000), punctured(prior.sample(22_222))))
    assert coverage(whole) > 0.998
    # the cells that lie wholly in a hole of 10 % of the mass; those on its rim are still held
    assert 0.89 < coverage(holed) < 0.94
    # a tenth of the mass is missing, and the noise of counting adds to it
    assert mass_error(holed) > mass_error(whole) + 0.03
    many = prior.sample(500_000)  # so many that there is hardly any noise
    coarse = median_cells(many[: 2**18], 64)
    assert mass_error(coarse.counts(punctured(many))) == pytest.approx(0.1, abs=0.02)


def test_a_blurred_sample_covers_but_has_its_mass_elsewhere_and_partly_outside() -> None:
    prior = PRIORS["mixture"]
    z = prior.sample(2000)
    found = prior_match(z + 2 * torch.randn_like(z), prior)
    assert found["mass_error"] > 2 * found["mass_error_reference"]
    assert found["outside"] > 0.1
    assert found["squared_mmd"] > 10 * abs(found["squared_mmd_reference"])
    assert found["outside_reference"] == pytest.approx(0.01, abs=0.01)


def test_a_fresh_sample_is_as_good_as_its_reference() -> None:
    prior = PRIORS["gaussian"]
    found = prior_match(prior.sample(2000), prior)
    assert found["coverage"] == pytest.approx(found["coverage_reference"], abs=0.01)
    assert found["mass_error"] == pytest.approx(found["mass_error_reference"], abs=0.03)
    assert found["outside"] == pytest.approx(0.01, abs=0.01)
    assert found["squared_mmd"] == pytest.approx(0, abs=2e-3)
    # the largest power of two below 2000 / 8 is 128 cells
    assert found["coverage_reference"] == pytest.approx(1 - (1 - 1 / 128) ** 2000, abs=0.01)


def test_codes_of_many_dimensions_have_no_cells_and_priors_without_a_density_no_outside() -> None:
    class Ring(Prior):
        def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
            angle = 2 * math.pi * torch.rand(n)
            return torch.stack([angle.cos(), angle.sin()], dim=1)

    many = prior_match(torch.randn(100, 4), Gaussian(4, std=1.0))
    assert {"coverage", "mass_error"}.isdisjoint(many)
    assert "outside" in many
    ring = prior_match(torch.randn(100, 2), Ring(2))
    assert "outside" not in ring
    assert "coverage" in ring
    assert all(f"{name}_reference" in ring for name in ("coverage", "mass_error", "squared_mmd"))


@pytest.mark.parametrize("name", PRIORS)
def test_one_per_cent_of_a_prior_lies_outside(name: str) -> None:
    prior, n = PRIORS[name], 5000
    floor = float(prior.log_density(prior.sample(n)).quantile(0.01))
    # both quantile and share are of n samples: five standard deviations
    assert outside(prior.log_density(prior.sample(n)), floor) == pytest.approx(
        0.01, abs=5 * math.sqrt(2 * 0.01 * 0.99 / n)
    )


@pytest.mark.parametrize("dimension", [2, 8])
def test_the_sliced_distance_of_a_shifted_gaussian_is_the_shift_over_the_root_of_the_dimension(
    dimension: int,
) -> None:
    n, shift = 20_000, torch.full((dimension,), 3.0)
    a, b = torch.randn(n, dimension), torch.randn(n, dimension)
    directions = fixed_directions(dimension, a.device)
    # on a direction v the distance is |shift·v|; over isotropic v its square averages |shift|² / dimension
    exact = float((directions @ shift).square().mean().sqrt())
    found = sliced_wasserstein(a + shift, b, directions)
    assert found == pytest.approx(exact, rel=0.02)
    assert found == pytest.approx(float(shift.norm()) / math.sqrt(dimension), rel=0.15)
    assert sliced_wasserstein(a, b, directions) < 0.05


def test_the_sliced_distance_of_a_stretched_gaussian_is_the_difference_of_the_stds() -> None:
    a, b = torch.randn(20_000, 2), torch.randn(20_000, 2)
    found = sliced_wasserstein(3 * a, b, fixed_directions(2, a.device))
    assert found == pytest.approx(2, rel=0.02)


def test_the_sliced_distance_of_points_to_themselves_in_another_order_is_zero() -> None:
    a = torch.randn(500, 3)
    assert sliced_wasserstein(a, a[torch.randperm(500)], fixed_directions(3, a.device)) < 1e-5


def test_the_squared_mmd_is_unbiased_at_equality_and_has_its_closed_form_for_shifted_gaussians() -> None:
    h, shift = 1.5, torch.tensor([1.0, 0.5])

    def overlap(distance: float) -> float:
        # E exp(-|x - y|² / 2h²) of two standard normals in 2-D, whose means are this far apart
        return h**2 / (h**2 + 2) * math.exp(-(distance**2) / (2 * (h**2 + 2)))

    expected = 2 * overlap(0) - 2 * overlap(float(shift.norm()))
    equal, shifted = [], []
    for _ in range(30):
        a, b = torch.randn(300, 2), torch.randn(400, 2)
        equal.append(squared_mmd(a, b, [h]))
        shifted.append(squared_mmd(a + shift, b, [h]))
    for values, mean in ((equal, 0.0), (shifted, expected)):
        error = 5 * float(torch.tensor(values).std()) / math.sqrt(len(values))
        assert sum(values) / len(values) == pytest.approx(mean, abs=error)
    assert min(equal) < 0 < max(equal)
    assert min(shifted) > max(equal)


def test_the_mmd_is_the_same_in_chunks_and_the_mean_over_bandwidths() -> None:
    a, b = torch.randn(2500, 2), torch.randn(2100, 2) + 0.5

    def kernel(x: Tensor, y: Tensor, h: float) -> Tensor:
        return (-(x.unsqueeze(1) - y).square().sum(2) / (2 * h**2)).exp().double()

    def direct(h: float) -> float:
        n, m = len(a), len(b)
        within = (kernel(a, a, h).sum() - n) / (n * (n - 1)) + (kernel(b, b, h).sum() - m) / (m * (m - 1))
        return float(within - 2 * kernel(a, b, h).mean())

    assert squared_mmd(a, b, [0.3, 2.0]) == pytest.approx((direct(0.3) + direct(2.0)) / 2, abs=1e-6)


def test_the_median_distance_of_a_plane_gaussian_is_that_of_rayleigh() -> None:
    # the difference of two standard normals has the standard deviation √2 in each dimension
    expected = math.sqrt(2) * math.sqrt(2 * math.log(2))
    assert median_distance(torch.randn(2000, 2)) == pytest.approx(expected, rel=0.03)


def test_the_evaluator_refuses_a_head_that_it_cannot_serve() -> None:
    added = "+evaluator@evaluators.prior_match=prior_match"
    for override, said in {
        "evaluators.prior_match.head=label": "categorical",
        "evaluators.prior_match.head=stile": "no head stile",
    }.items():
        with pytest.raises(ConfigError, match=said):
            build_parts(composed(added, override), Builder())


def test_the_codes_of_an_untrained_encoder_do_not_match_a_wide_prior() -> None:
    others = (f"evaluators.{name}=null" for name in ("log_likelihood", "samples", "latent_map"))
    found = experiment("variant=basic", "prior=gaussian_wide", *others).look("test", None)
    for name in ("sliced_wasserstein", "squared_mmd"):
        value, reference = found[name], found[f"{name}_reference"]
        assert isinstance(value, float)
        assert isinstance(reference, float)
        assert value > 3 * reference
