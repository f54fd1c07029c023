"""Densities of priors against quadrature, their own samples and closed forms; the Swiss roll's geometry."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from aae_runner.errors import ConfigError
from aae_runner.priors import Categorical, Gaussian, GaussianMixture, Prior, SwissRoll, Uniform


def roll(std: float = 0.3) -> SwissRoll:
    """The paper's."""
    return SwissRoll(None, turns=2.25, segments=10, std=std)


PRIORS: dict[str, Callable[[], Prior]] = {
    "gaussian": lambda: Gaussian(2, std=1.0),
    "wide gaussian": lambda: Gaussian(2, std=5.0),
    "mixture": lambda: GaussianMixture(None, components=10, radius=9.0, radial_std=3.0, tangential_std=0.6),
    "swiss roll": roll,
    "uniform": lambda: Uniform(2, half_width=2.0),
}
STEP = 0.2


def masses(prior: Prior, reach: float, label: int | None = None) -> Tensor:
    """Probability of each square of a grid from -reach to reach, by the midpoint rule."""
    middles = torch.arange(-reach + STEP / 2, reach, STEP)
    points = torch.cartesian_prod(middles, middles)
    log_density = torch.cat(
        [
            prior.log_density(part, None if label is None else torch.full((len(part),), label))
            for part in points.split(1000)
        ]
    )
    return STEP**2 * log_density.double().exp().view(len(middles), len(middles))


@pytest.mark.parametrize("name", PRIORS)
def test_a_density_integrates_to_one_and_gives_the_frequencies_of_the_samples(name: str) -> None:
    torch.manual_seed(0)
    prior, n = PRIORS[name](), 200_000
    reach = 16.0 if isinstance(prior, SwissRoll) else 32.0
    probability = masses(prior, reach)
    assert float(probability.sum()) == pytest.approx(1, abs=1e-4)
    cell = ((prior.sample(n) + reach) / STEP).floor().long()
    counts = torch.zeros_like(probability).index_put_(tuple(cell.T), torch.ones(n).double(), accumulate=True)
    # in squares of 1 x 1, of which those that expect few are counted as one
    expected, found = (t.unfold(0, 5, 5).unfold(1, 5, 5).sum((2, 3)).flatten() for t in (probability, counts))
    common = expected * n > 20
    assert common.sum() >= 10
    pooled = [torch.cat([t[common], t[~common].sum().view(1)]) for t in (found, expected)]
    few = pooled[1][-1] * n < 5
    found, expected = (t[:-1] if few else t for t in pooled)
    assert stats.chisquare(found, expected / expected.sum() * found.sum()).pvalue > 0.001


@pytest.mark.parametrize("name", ["mixture", "swiss roll"])
def test_the_density_of_a_part_integrates_to_one_and_has_the_mean_and_covariance_of_its_samples(
    name: str,
) -> None:
    torch.manual_seed(0)
    prior, n, label = PRIORS[name](), 100_000, 7
    probability = masses(prior, 24.0, label)
    assert float(probability.sum()) == pytest.approx(1, abs=1e-4)
    z = prior.sample(n, torch.full((n,), label))
    middles = torch.arange(-24.0 + STEP / 2, 24.0, STEP).double()
    places = torch.cartesian_prod(middles, middles)
    mean = probability.flatten() @ places
    assert torch.allclose(z.mean(0).double(), mean, atol=5 * float(z.std()) / math.sqrt(n))
    centered = places - mean
    covariance = centered.T @ (centered * probability.view(-1, 1))
    assert torch.allclose(torch.cov(z.T).double(), covariance, atol=0.02 * float(covariance.diag().max()))


@pytest.mark.parametrize("name", ["mixture", "swiss roll"])
def test_the_density_is_the_mean_of_those_of_its_parts(name: str) -> None:
    torch.manual_seed(0)
    prior = PRIORS[name]()
    z = prior.sample(50)
    parts = torch.stack([prior.log_density(z, torch.full((50,), k)) for k in range(10)])
    assert torch.allclose(parts.logsumexp(0) - math.log(10), prior.log_density(z), atol=1e-4)


def test_a_gaussian_in_ten_dimensions_has_its_closed_form() -> None:
    z = 5 * torch.randn(100, 10, dtype=torch.float64)
    reference = stats.multivariate_normal(torch.zeros(10), 25 * torch.eye(10)).logpdf(z)
    assert torch.allclose(Gaussian(10, std=5.0).log_density(z), torch.from_numpy(reference))


@pytest.mark.parametrize("name", ["gaussian", "mixture", "swiss roll"])
def test_a_density_stays_finite_where_its_exponential_underflows(name: str) -> None:
    far = torch.tensor([[500.0, 0.0], [-300.0, 400.0]])
    assert PRIORS[name]().log_density(far).isfinite().all()
    assert (PRIORS[name]().log_density(far) < -1000).all()


def test_the_mean_log_density_of_samples_is_minus_the_entropy() -> None:
    torch.manual_seed(0)
    for std in (1.0, 5.0):
        prior, n = Gaussian(8, std=std), 100_000
        entropy = 4 * (1 + math.log(2 * math.pi * std**2))
        # log p is minus half a chi-square of 8 degrees of freedom: its standard deviation is 2
        assert float(prior.log_density(prior.sample(n)).mean()) == pytest.approx(-entropy, abs=5 * 2 / n**0.5)


def test_the_uniform_prior_fills_its_box_and_has_no_density_outside() -> None:
    torch.manual_seed(0)
    prior = Uniform(3, half_width=2.0)
    z = prior.sample(10_000)
    assert all(stats.kstest(column, stats.uniform(-2, 4).cdf).pvalue > 0.001 for column in z.T.numpy())
    inside_and_out = torch.tensor([[1.9, -1.9, 0.0], [2.1, 0.0, 0.0], [0.0, 0.0, -2.1]])
    expected = torch.tensor([-3 * math.log(4), -math.inf, -math.inf])
    assert torch.allclose(prior.log_density(inside_and_out), expected)


def test_a_categorical_prior_has_no_density() -> None:
    with pytest.raises(NotImplementedError):
        Categorical(3).log_density(torch.eye(3))


def test_a_uniform_prior_needs_the_size_of_its_head() -> None:
    with pytest.raises(ConfigError, match="set the size"):
        Uniform(None, half_width=1.0)


def test_digit_k_owns_the_kth_tenth_of_the_roll_evenly() -> None:
    torch.manual_seed(0)
    prior = roll(std=0.005)
    for k in range(10):
        z = prior.sample(2000, labels=torch.full((2000,), k))
        t = z.norm(dim=1)  # t is both radius and angle
        assert torch.allclose(z, torch.stack([t * t.cos(), t * t.sin()], 1), atol=0.4)
        u = (t / (4.5 * math.pi)) ** 2
        assert stats.kstest(u.numpy(), stats.uniform(k / 10, 0.1).cdf).pvalue > 0.001


def test_the_unlabelled_roll_is_that_of_labels_drawn_evenly() -> None:
    torch.manual_seed(0)
    radii = [
        z.norm(dim=1).numpy()
        for z in (roll().sample(20_000), roll().sample(20_000, torch.arange(20_000) % 10))
    ]
    assert stats.ks_2samp(*radii).pvalue > 0.001


def test_the_noise_around_the_roll_has_its_std() -> None:
    torch.manual_seed(0)
    # segments so many that a label is a point
    prior = SwissRoll(None, turns=2.25, segments=100_000, std=0.3)
    z = prior.sample(50_000, labels=torch.full((50_000,), 70_000)) - prior.point(torch.tensor([0.7]))
    assert torch.allclose(z.std(0), torch.tensor(0.3), rtol=0.02)
    assert z.mean(0).abs().max() < 5 * 0.3 / 50_000**0.5 + 1e-3


@pytest.mark.parametrize(("turns", "std", "segments"), [(2.25, 0.01, 10), (10, 0.3, 10), (1, 0.3, 3000)])
def test_the_density_of_a_long_or_narrow_roll_is_its_samples_density(
    turns: float, std: float, segments: int
) -> None:
    torch.manual_seed(0)
    prior = SwissRoll(None, turns=turns, segments=segments, std=std)
    z = prior.sample(60)
    places = 100_000
    u = (torch.arange(places, dtype=torch.float64) + 0.5) / places
    of_roll = prior.point(u)
    squares = torch.stack([(one - of_roll).square().sum(1) for one in z.double()])
    exact = (-0.5 * squares / std**2).logsumexp(1) - math.log(places * 2 * math.pi * std**2)
    assert torch.allclose(prior.log_density(z).double(), exact, atol=0.02)
    labels = torch.arange(60) % segments
    assert prior.log_density(prior.sample(60, labels), labels).isfinite().all()


def test_a_roll_too_long_for_its_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="Raise std"):
        SwissRoll(None, turns=2.25, segments=10, std=1e-6)


def test_the_roll_runs_from_the_origin_to_its_last_winding() -> None:
    ends = roll().point(torch.tensor([0.0, 1.0]))
    end = 4.5 * math.pi  # where the cosine is 0 and the sine 1
    assert torch.allclose(ends, torch.tensor([[0.0, 0.0], [0.0, end]]), atol=1e-4)
