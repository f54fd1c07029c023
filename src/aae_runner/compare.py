"""Finished runs side by side: their codes, as in Figure 2, and how far their clusterings agree."""

import statistics
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
        ConfigError: a run has no head `style` of two dimensions, or samples are asked for and none has any.
    """
    if sampled and not any(map(_gaussian, runs)):
        raise ConfigError(
            "--sampled: none of these has a Gaussian q(z|x), so none has samples. Leave it out."
        )
    maps = []
    for name, run in zip(names, runs, strict=True):
        source = Source(run.model, run.priors, "style", sampled=sampled and _gaussian(run))
        if source.prior.dimension != 2:
            raise ConfigError(f"{name}: its z has {source.prior.dimension} dimensions; 2 can be drawn.")
        torch.manual_seed(derive_seed("compare", run.config.seed))
        z = source.codes(run.snapshot("test"))
        measures = [
            f"{text} {run.results[tag]:.3g}"
            for measure, text in SHOWN.items()
            if (tag := f"test/{source.prefix}{measure}") in run.results
        ]
        title = "\n".join(
            [f"{name}: {source.called('test')}", *filter(None, [", ".join(measures)]), figures.LINES]
        )
        maps.append(figures.Map(title, z, run.data.test.y, run.data.names, source.prior.sample(200_000)))
    return figures.latent_maps(maps)


def _gaussian(run: Finished) -> bool:
    heads = run.model.heads
    return "style" in heads and isinstance(heads["style"], Gaussian)


def agreement(runs: Sequence[Finished]) -> list[float]:
    """How far each run's clusters of the validation images are those of the others, up to 1.

    The mean, over the other runs, of the adjusted mutual information of two clusterings: 1 where one is the
    other under other names, about 0 where they know nothing of one another, of however many clusters they
    are. Labels are not needed. What a run gets right others get right too, and each errs in its own way: the
    highest is likely to be a good one.

    Args:
        runs: two or more, of any numbers of clusters.

    Raises:
        ConfigError: the runs are of different data, or one has no q(y|x).
    """
    from sklearn.metrics import adjusted_mutual_info_score

    for run in runs:
        if run.results["data"]["fingerprint"] != runs[0].results["data"]["fingerprint"]:
            raise ConfigError(
                f"{run.folder}: is of other data than {runs[0].folder}. Only clusterings of the same images "
                "can agree."
            )
    images = runs[0].data.valid  # of all: read once
    found = [torch.cat([run.classify(x) for x, _ in images.batches(1000)]) for run in runs]
    return [
        statistics.fmean(adjusted_mutual_info_score(one, other) for other in found if other is not one)
        for one in found
    ]
