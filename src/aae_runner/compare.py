"""Finished runs side by side, as in Figure 2."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from aae_runner import figures
from aae_runner.data import derive_seed
from aae_runner.errors import ConfigError
from aae_runner.evaluators import Source
from aae_runner.finished import Finished
from aae_runner.latents import Gaussian

SHOWN = {"coverage": "coverage", "sliced_wasserstein": "sliced Wasserstein distance"}
"""The measures below each title, by their name in results.json."""


def compare(runs: Sequence[Finished], names: Sequence[str], *, sampled: bool) -> Figure:
    """The codes of each run's test images over their prior, on common axes.

    Args:
        runs: two or more.
        names: their titles.
        sampled: of a Gaussian q(z|x), samples instead of means.

    Raises:
        ConfigError: a run has no head `style` of two dimensions.
    """
    maps = []
    for name, run in zip(names, runs, strict=True):
        heads = run.model.heads
        gaussian = "style" in heads and isinstance(heads["style"], Gaussian)
        source = Source(run.model, run.priors, "style", sampled=sampled and gaussian)
        if source.prior.dimension != 2:
            raise ConfigError(f"{name}: its z has {source.prior.dimension} dimensions; 2 can be drawn.")
        torch.manual_seed(derive_seed("compare", run.config.seed))
        with torch.no_grad():
            z = source.codes(run.snapshot("test"))
        measures = [
            f"{text} {run.results[tag]:.3g}"
            for measure, text in SHOWN.items()
            if (tag := f"test/{source.prefix}{measure}") in run.results
        ]
        title = "\n".join([f"{name}: {source.called('test')}", ", ".join(measures)])
        maps.append(figures.Map(title, z, run.data.test.y, run.data.names, source.prior.sample(200_000)))
    return figures.latent_maps(maps)
