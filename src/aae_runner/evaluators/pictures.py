"""What a person looks at: images, samples, styles, codes."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch.nn import functional as F

from aae_runner import losses
from aae_runner.data import normalize
from aae_runner.errors import ConfigError
from aae_runner.evaluators.snapshot import (
    AT_ONCE,
    CHUNK,
    Evaluator,
    Every,
    Findings,
    Priors,
    Snapshot,
    Source,
    nearest,
    one_of,
)
from aae_runner.latents import ClusterHeads
from aae_runner.model import Model


class Reconstructions(Evaluator):
    """Images above their reconstructions, and the mean reconstruction error.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        count: number of pictures.
    """

    def __init__(
        self, model: Model, priors: Priors, /, *, every: Every, count: Annotated[int, Ge(1)] = 10
    ) -> None:
        super().__init__(every)
        self.count = count

    def __call__(self, snapshot: Snapshot) -> Findings:
        """`reconstruction_error` (half the squared distance, per image) and the figure `reconstructions`."""
        from aae_runner import figures

        total = torch.zeros((), dtype=torch.float64, device=snapshot.data.device)
        offset = 0
        for x, _ in snapshot.images.batches(CHUNK):
            values = {name: value[offset : offset + len(x)] for name, value in snapshot.values.items()}
            decoded = snapshot.model.decode(values)
            total += losses.reconstruction(x, decoded).double() * len(x)
            offset += len(x)
        decoded = snapshot.model.decode(
            {name: value[: self.count] for name, value in snapshot.values.items()}
        )
        shown = torch.stack([normalize(snapshot.images.x[: self.count]), decoded])
        title = f"Images of the {snapshot.split} split (top) and their reconstructions"
        return {
            "reconstruction_error": float(total) / offset,
            "reconstructions": figures.pictures(shown, title),
        }


class Samples(Evaluator):
    """Decoded samples of the priors, beside training images (Fig. 5).

    At the right of each row stands the training image nearest to the row's last sample: a model that only
    remembers would show the same picture twice.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        rows: rows of pictures.
        columns: samples in a row.
    """

    def __init__(
        self,
        model: Model,
        priors: Priors,
        /,
        *,
        every: Every,
        rows: Annotated[int, Ge(1)] = 8,
        columns: Annotated[int, Ge(1)] = 12,
    ) -> None:
        super().__init__(every)
        for name in model.heads:
            one_of(priors, name, "prior of the head")
        self.rows, self.columns = rows, columns

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `samples`."""
        from aae_runner import figures

        n = self.rows * self.columns
        decoded = snapshot.model.decode(
            {name: snapshot.priors[name].sample(n) for name in snapshot.model.heads}
        )
        samples = decoded.unflatten(0, (self.rows, self.columns))
        train = snapshot.data.train
        neighbors = normalize(train.x[nearest(samples[:, -1], train)]).unsqueeze(1)
        title = "Decoded samples of the prior; right: the training image nearest to the last of its row"
        names = [""] * (self.columns - 1) + ["last", "nearest"]
        return {"samples": figures.pictures(torch.cat([samples, neighbors], dim=1), title, names)}


class Manifold(Evaluator):
    """The decoder at evenly spaced percentiles of a prior (Fig. 2e), along its parts (Figs. 4b and 4d).

    Nothing is drawn for a prior that knows no percentiles.

    Args:
        model: what will be looked at; it must have no head but this one.
        priors: of its heads.
        every: see `Evaluator`.
        rows: rows of pictures.
        columns: pictures in a row.
        tables: of a prior with parts, how many of them are shown, the first; null: all.
        head: the head whose prior is followed.
    """

    def __init__(
        self,
        model: Model,
        priors: Priors,
        /,
        *,
        every: Every,
        rows: Annotated[int, Ge(1)] = 16,
        columns: Annotated[int, Ge(1)] = 16,
        tables: Annotated[int, Ge(1)] | None = None,
        head: str = "style",
    ) -> None:
        super().__init__(every)
        self.source = Source(model, priors, head)
        if len(model.heads) > 1:
            raise ConfigError(f"it follows {head} alone, but the decoder sees {', '.join(model.heads)}.")
        self.rows, self.columns, self.tables = rows, columns, tables

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `manifold`, or nothing."""
        from aae_runner import figures

        places = list(self.source.prior.manifold(self.rows, self.columns).items())[: self.tables]
        decoded = {
            name: snapshot.model.decode({self.source.head: z.flatten(0, 1)}).unflatten(0, z.shape[:2])
            for name, z in places
        }
        if not decoded:
            return {}
        return {"manifold": figures.tables(decoded, "The decoder over the percentiles of the prior")}


class StyleGrid(Evaluator):
    """Style and label apart (Fig. 7): a row is one image's z, a column one class.

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        rows: images whose style is taken.
        style: the head that is z.
        label: the head that is y.
    """

    def __init__(
        self,
        model: Model,
        priors: Priors,
        /,
        *,
        every: Every,
        rows: Annotated[int, Ge(1)] = 10,
        style: str = "style",
        label: str = "label",
    ) -> None:
        super().__init__(every)
        self.rows = rows
        self.style, self.label = (one_of(model.heads, name, "head") for name in (style, label))

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `style_grid`; its first column shows the images whose style the row has."""
        from aae_runner import figures

        style = snapshot.values[self.style][: self.rows]
        classes = snapshot.model.classes(self.label)
        y = F.one_hot(torch.tensor(classes, device=style.device), snapshot.values[self.label].shape[1]).to(
            style.dtype
        )
        values = {
            self.style: style.repeat_interleave(len(y), dim=0),
            self.label: y.repeat(len(style), 1),
        }
        decoded = snapshot.model.decode(values).unflatten(0, (len(style), len(y)))
        source = normalize(snapshot.images.x[: self.rows]).unsqueeze(1)
        table = torch.cat([source, decoded], dim=1)
        title = f"Style of the {snapshot.split} image at the left, in every class"
        named = classes == [*range(len(snapshot.data.names))]  # clusters may be more, or what is left of more
        names = snapshot.data.names if named else [str(k) for k in classes]
        return {"style_grid": figures.pictures(table, title, column_labels=["image", *names])}


class LatentMap(Evaluator):
    """Codes, colored by label, over the contours of their prior (Fig. 2).

    Args:
        model: what will be looked at.
        priors: of its heads.
        every: see `Evaluator`.
        head: the head whose codes are shown; of more than three dimensions, the first two.
        sampled: look at samples of a Gaussian q(z|x) instead of its means.
    """

    def __init__(
        self, model: Model, priors: Priors, /, *, every: Every, head: str = "style", sampled: bool = False
    ) -> None:
        super().__init__(every)
        self.source = Source(model, priors, head, sampled=sampled)
        if self.source.prior.dimension < 2:
            raise ConfigError("a latent map needs a head of two dimensions or more.")

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `latent_map`, or `sampled_latent_map`."""
        from aae_runner import figures

        z = self.source.codes(snapshot)
        shown = f", first 2 of {z.shape[1]} dimensions" if z.shape[1] > 3 else ""
        called = self.source.called(snapshot.split)
        title = f"{called[0].upper()}{called[1:]}{shown}\n{figures.LINES}"
        prior = self.source.prior.sample(min(200_000, 2 * AT_ONCE // z.shape[1]))
        one = figures.Map(title, z, snapshot.images.y, snapshot.data.names, prior)
        return {f"{self.source.prefix}latent_map": figures.latent_maps([one])}


class Representation(Evaluator):
    """W_C y + z of all images, colored by label, with the heads of the clusters (Fig. 11).

    More than three dimensions are mapped linearly onto the plane, so that the heads lie on a circle.

    Args:
        model: what will be looked at; its join must be `ClusterHeads`.
        priors: of its heads.
        every: see `Evaluator`.
    """

    def __init__(self, model: Model, priors: Priors, /, *, every: Every) -> None:
        super().__init__(every)
        if not isinstance(model.join, ClusterHeads):
            raise ConfigError("a representation needs a join with heads: aae_runner.latents.ClusterHeads.")
        if model.join.size < 2:
            raise ConfigError("a representation needs a z of 2 dimensions or more.")
        self.join = model.join

    def __call__(self, snapshot: Snapshot) -> Findings:
        """The figure `representation`."""
        from aae_runner import figures

        clusters = snapshot.model.classes(self.join.label)
        points, heads = self.join(snapshot.values), self.join.heads[clusters]
        if self.join.size > 3:
            angle = torch.arange(len(heads), device=heads.device) * (2 * math.pi / len(heads))
            circle = torch.stack([angle.cos(), angle.sin()], dim=1)
            plane = torch.linalg.lstsq(heads, circle, driver="gelsd" if heads.is_cpu else None).solution
            points, heads = points @ plane, heads @ plane
        title = f"Representation of the {snapshot.split} images in {self.join.size} dimensions"
        figure = figures.representation(
            points,
            snapshot.images.y,
            dict(zip(clusters, heads, strict=True)),
            names=snapshot.data.names,
            title=title,
        )
        return {"representation": figure}
