"""What a finished run is asked to draw: samples, and walks through its code."""

import math

import torch
from matplotlib.figure import Figure

from aae_runner import figures
from aae_runner.data import derive_seed, normalize
from aae_runner.errors import ConfigError
from aae_runner.evaluators import Source
from aae_runner.finished import Finished
from aae_runner.precision import exact_products

ROWS = 10
"""Dimensions of the style that a walk shows, the first."""


def samples(run: Finished, n: int, label: int | None) -> Figure:
    """n decoded samples of the priors, as near to a square as n allows; see `Finished.draw`."""
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    images = run.sample(n, label)
    blank = images.new_ones(rows * columns - n, *run.shape)
    table = torch.cat([images, blank]).unflatten(0, (rows, columns))
    return figures.pictures(table, f"Decoded samples of the prior{_of(label)}")


def walk(run: Finished, label: int | None, steps: int) -> Figure:
    """Each dimension of the style in a row, from -2 to 2 standard deviations about the center of its prior.

    Args:
        run: its center and deviations are those of 10,000 samples of the prior.
        label: the class or cluster that is shown; None: the first, where the priors know classes.
        steps: pictures in a row.

    Raises:
        ConfigError: there is no such class, or no style with a continuous prior.
    """
    source = Source(run.model, run.priors, "style")
    if label is None and run.labels:
        label = run.labels[0]
    torch.manual_seed(derive_seed("walk", run.config.seed))
    codes = run.draw(10_000, label)
    z = codes["style"]
    rows = min(ROWS, source.prior.dimension)
    deviations = torch.linspace(-2, 2, steps)
    style = z.mean(0).repeat(rows, steps, 1)
    for row in range(rows):
        style[row, :, row] += deviations * z[:, row].std()
    values = {name: value[:1].expand(rows * steps, -1) for name, value in codes.items()}
    decoded = run.decode(values | {"style": style.flatten(0, 1)})
    return figures.pictures(
        decoded.unflatten(0, (rows, steps)),
        f"Style, in standard deviations of its prior about the center{_of(label)}",
        [f"{deviation:.1f}" for deviation in deviations.tolist()],
        [f"$z_{{{row + 1}}}$" for row in range(rows)],
    )


def between(run: Finished, ends: tuple[int, int], steps: int) -> Figure:
    """The line between the codes of two test images, decoded, with the images at its ends.

    Args:
        run: its data are read.
        ends: indices of the images in the test split.
        steps: pictures on the line, those of the two codes included.

    Raises:
        ConfigError: there is no such image, or it is one alone.
    """
    if ends[0] == ends[1]:
        raise ConfigError(f"test image {ends[0]}: a line has two ends. Name two different images.")
    images = run.data.test
    for index in ends:
        if not 0 <= index < len(images):
            raise ConfigError(f"test image {index}: there is none. Allowed: 0 to {len(images) - 1}.")
    both = images[torch.tensor(ends, device=run.device)]
    x = normalize(both.x)
    with torch.no_grad(), exact_products():
        codes = run.model.encode(x, both.y)
    along = torch.linspace(0, 1, steps, device=run.device).unsqueeze(1)
    line = {name: torch.lerp(code.value[0], code.value[1], along) for name, code in codes.items()}
    row = torch.cat([x[:1].cpu(), run.decode(line), x[1:].cpu()]).unsqueeze(0)
    names = [f"image {ends[0]}", *[""] * steps, f"image {ends[1]}"]
    return figures.pictures(row, "Two test images, and the line between their codes", names)


def _of(label: int | None) -> str:
    return "" if label is None else f", class {label}"
