"""Losses: known values, and gradients against finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from aae_runner import losses


def double(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_reconstruction_sums_over_pixels_and_averages_over_images() -> None:
    x, decoded = torch.zeros(4, 1, 28, 28), torch.full((4, 1, 28, 28), 0.1)
    assert float(losses.reconstruction(x, decoded)) == pytest.approx(0.5 * 784 * 0.01)


def test_an_undecided_discriminator_has_loss_2_log_2_and_gives_its_generator_log_2() -> None:
    logits = torch.zeros(5)
    assert float(losses.discriminator(logits, logits)) == pytest.approx(2 * math.log(2))
    assert float(losses.generator(logits)) == pytest.approx(math.log(2))


def test_the_discriminator_is_told_that_prior_samples_are_real() -> None:
    sure = torch.full((5,), 10.0)
    assert losses.discriminator(real=sure, fake=-sure) < 1e-3
    assert losses.discriminator(real=-sure, fake=sure) > 10
    assert losses.generator(fake=sure) < 1e-3


def test_classification_takes_logits_not_their_softmax() -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0]])
    assert losses.classification(logits, torch.tensor([0])) < 1e-6
    assert losses.classification(logits.softmax(1), torch.tensor([0])) > 0.5


def test_gradients_agree_with_finite_differences() -> None:
    x = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    y = torch.tensor([0, 2, 1])
    assert gradcheck(lambda decoded: losses.reconstruction(x, decoded), double(3, 1, 2, 2))
    assert gradcheck(losses.discriminator, (double(6), double(6)))
    assert gradcheck(losses.generator, double(6))
    assert gradcheck(lambda logits: losses.classification(logits, y), double(3, 3))


def test_a_loss_of_bfloat16_is_that_of_the_same_numbers_in_float32() -> None:
    torch.manual_seed(0)
    a, b, c = (torch.randn(100, 30).bfloat16() for _ in range(3))
    y = torch.randint(30, (100,))
    for name, loss in {
        "reconstruction": lambda a, b, c: losses.reconstruction((a > 0).float(), b),
        "discriminator": lambda a, b, c: losses.discriminator(a[:, 0], b[:, 0]),
        "generator": lambda a, b, c: losses.generator(a[:, 0]),
        "classification": lambda a, b, c: losses.classification(a, y),
        "bernoulli": lambda a, b, c: losses.bernoulli((a > 0).float(), b),
        "kl_to_gaussian": lambda a, b, c: losses.kl_to_gaussian(a, b, 2.0),
        "log_gaussian": losses.log_gaussian,
    }.items():
        found, exact = loss(a, b, c), loss(a.float(), b.float(), c.float())
        assert found.dtype == torch.float32, name
        torch.testing.assert_close(found, exact, msg=name)
