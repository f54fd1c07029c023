"""What is drawn: from tensors to figures. Nothing here knows a model or a logger."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

# Petroff's ten colors: told apart with every common color vision, and in gray
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
INK = "#333333"
MASSES = (0.5, 0.9, 0.99)
LINES = "lines hold 50, 90, 99 % of the prior"
GAP = 1  # pixels between two pictures of a table


class Map(NamedTuple):
    """What one panel of `latent_maps` shows."""

    title: str
    z: Tensor
    """(N, D) codes, D >= 2."""
    y: Tensor
    """(N,) labels."""
    names: Sequence[str]
    """Of the labels."""
    prior: Tensor
    """(M, D) samples of the prior, 100,000 or more for smooth contours."""


def pictures(
    rows: Tensor, title: str, column_labels: Sequence[str] = (), row_labels: Sequence[str] = ()
) -> Figure:
    """A table of pictures.

    Args:
        rows: (R, K, C, H, W) in [0, 1], gray (C = 1) or RGB (C = 3); values outside are clipped.
        title: above the table.
        column_labels: K texts above the columns, or none.
        row_labels: R texts at the left of the rows, or none.
    """
    r, k, _, h, w = rows.shape
    tile = 0.55  # inches
    above = 0.75 if column_labels else 0.45
    size = (max(4.0, k * tile + 0.6), r * tile + above)
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    axes = figure.add_subplot()
    _show(axes, rows)
    figure.suptitle(_literal(title), color=INK, fontsize=11, wrap=True)
    axes.set_xticks(
        [GAP + (j + 0.5) * (w + GAP) for j in range(len(column_labels))], [*map(_literal, column_labels)]
    )
    axes.xaxis.tick_top()
    axes.set_yticks(
        [GAP + (i + 0.5) * (h + GAP) for i in range(len(row_labels))], [*map(_literal, row_labels)]
    )
    return figure


def tables(named: Mapping[str, Tensor], title: str) -> Figure:
    """Tables of pictures, five in a row, each with its name above.

    Args:
        named: (R, K, C, H, W) in [0, 1] each, by name, all of one shape.
        title: above all.
    """
    across = min(5, len(named))
    down = -(-len(named) // across)
    r, k = next(iter(named.values())).shape[:2]
    tile = 0.4 if len(named) == 1 else 0.22  # inches
    size = (max(4.0, across * k * tile), down * (r * tile + 0.3) + 0.4)
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    for place, (name, rows) in enumerate(named.items()):
        axes = figure.add_subplot(down, across, place + 1)
        _show(axes, rows)
        axes.set_title(name, color=INK, fontsize=9)
    figure.suptitle(title, color=INK, fontsize=11, wrap=True)
    return figure


def latent_maps(maps: Sequence[Map]) -> Figure:
    """Codes colored by label over the contours of their prior, a panel for each map, on common axes.

    The contours hold 50, 90 and 99 % of the prior. They are measured on its samples, so that a prior need
    not know its density. A single map of three dimensions is shown in space and along each axis; of more,
    the first two are shown.
    """
    spatial = len(maps) == 1 and maps[0].z.shape[1] == 3
    pairs = ((0, 1), (0, 2), (1, 2)) if spatial else ((0, 1),)
    panels = [(one, pair) for one in maps for pair in pairs]
    reach = max(_reach(one, 3 if spatial else 2) for one in maps)
    count = len(panels) + spatial
    across = 1 if count == 1 else 2 if count in (2, 4) else 3
    down = -(-count // across)
    figure = Figure(figsize=(5.2 * across + 1.4, 5.4 * down + 0.2), layout="constrained", dpi=120)
    for place, (one, pair) in enumerate(panels):
        axes = figure.add_subplot(down, across, place + 1)
        points, samples = (values[:, list(pair)].cpu().numpy() for values in (one.z, one.prior))
        _scatter(axes, points, one.y.cpu().numpy(), reach)
        _contours(axes, samples)
        axes.set_xlabel(f"$z_{pair[0] + 1}$", color=INK)
        axes.set_ylabel(f"$z_{pair[1] + 1}$", color=INK)
        if not spatial:
            axes.set_title(_literal(one.title), color=INK, fontsize=11)
    if spatial:
        axes = _in_space(figure, (down, across, count), maps[0].z, maps[0].y, reach)
        axes.set(xlabel="$z_1$", ylabel="$z_2$", zlabel="$z_3$")
        figure.suptitle(_literal(maps[0].title), color=INK, fontsize=11)
    known = zip_longest(*(one.names for one in maps))  # a color stands for a label of each data set
    names = [" / ".join(dict.fromkeys(filter(None, some))) for some in known]
    _legend(figure, torch.cat([one.y for one in maps]), names)
    return figure


def representation(
    points: Tensor, y: Tensor, heads: Mapping[int, Tensor], *, names: Sequence[str], title: str
) -> Figure:
    """Points colored by label, and the heads of their clusters, numbered.

    Args:
        points: (N, 2) or (N, 3).
        y: (N,) labels.
        heads: (2,) or (3,), by the number of their cluster.
        names: of the labels.
        title: above the map.
    """
    places, centers = points.cpu().numpy(), torch.stack(list(heads.values())).cpu().numpy()
    reach = 1.05 * max(np.abs(places).max(), np.abs(centers).max())
    figure = Figure(figsize=(6.6, 5.6), layout="constrained", dpi=120)
    if points.shape[1] == 3:
        axes = _in_space(figure, (1, 1, 1), points, y, reach)
    else:
        axes = figure.add_subplot()
        _scatter(axes, places, y.cpu().numpy(), reach)
    axes.set_title(title, color=INK, fontsize=11)
    for k, center in zip(heads, centers, strict=True):
        axes.text(
            *center, str(k), ha="center", va="center", fontsize=9, color="white",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": INK, "edgecolor": "white"},
        )  # fmt: skip
    _legend(figure, y, names)
    return figure


def confusion(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """How often each class (a row) is taken for each (a column): per cent of the row, and none where 0.

    Args:
        counts: (K, outputs) images; outputs beyond the K classes name none, and share a last column.
        names: K names of classes.
        title: above the table.
    """
    k = len(names)
    called = [_literal(name) for name in names]
    if counts.shape[1] > k:
        counts = np.column_stack([counts[:, :k], counts[:, k:].sum(1)])
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    size = max(3.6, 0.55 * len(names) + 1.2)
    figure = Figure(figsize=(size, size), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in zip(*share.nonzero(), strict=True):
        text = f"{share[i, j]:.1f}" if share[i, j] < 99.95 else "100"
        axes.text(
            j, i, text, ha="center", va="center", fontsize=8, color="white" if share[i, j] > 50 else INK
        )
    turned = max(map(len, names)) > 3
    columns = [*called, *["none"] * (share.shape[1] - k)]
    axes.set_xticks(range(len(columns)), columns, rotation=90 if turned else 0)
    axes.set_yticks(range(k), called)
    axes.set_xlabel("taken for", color=INK)
    axes.set_ylabel("class", color=INK)
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_title(title, color=INK, fontsize=11)
    return figure


def _literal(text: str) -> str:
    """The same for matplotlib, which takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")


def _show(axes: Axes, rows: Tensor) -> None:
    """(R, K, C, H, W) as one image with gaps of a pixel."""
    r, k, c, h, w = rows.shape
    canvas = np.ones((r * (h + GAP) + GAP, k * (w + GAP) + GAP, c))
    tiles = rows.clamp(0, 1).permute(0, 1, 3, 4, 2).cpu().numpy()
    for i in range(r):
        for j in range(k):
            top, left = GAP + i * (h + GAP), GAP + j * (w + GAP)
            canvas[top : top + h, left : left + w] = tiles[i, j]
    axes.imshow(canvas.squeeze(2) if c == 1 else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)


def _reach(one: Map, shown: int) -> float:
    """Half the length of axes that hold all codes and all contours of the prior, in the dimensions shown."""
    z, prior = (values[:, :shown].abs().cpu().numpy() for values in (one.z, one.prior))
    # contours are smoothed, so they lie a little outside of what they hold
    return float(max(1.05 * z.max(), 1.12 * np.quantile(prior, 0.9999)))


def _scatter(axes: Axes, points: NDArray[np.float32], labels: NDArray[np.int64], reach: float) -> None:
    # in the order of the split, so that no class covers the others
    axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.7, linewidths=0, c=_colors(labels))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _in_space(figure: Figure, place: tuple[int, int, int], points: Tensor, y: Tensor, reach: float) -> Axes3D:
    axes = figure.add_subplot(*place, projection="3d")
    assert isinstance(axes, Axes3D)
    x1, x2, x3 = points.cpu().numpy().T
    axes.scatter(x1, x2, x3, s=3, alpha=0.5, linewidths=0, c=_colors(y.cpu().numpy()), depthshade=False)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set_box_aspect((1, 1, 1), zoom=0.95)
    axes.tick_params(colors=INK, labelsize=8)
    return axes


def _colors(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array(PALETTE)[labels % len(PALETTE)]


def _legend(figure: Figure, y: Tensor, names: Sequence[str]) -> None:
    dots = [
        Line2D([], [], linestyle="", marker="o", color=PALETTE[k % len(PALETTE)], label=_literal(names[k]))
        for k in y.unique().tolist()
    ]
    figure.legend(handles=dots, loc="outside right center", title="label", frameon=False)


def _contours(axes: Axes, samples: NDArray[np.float32]) -> None:
    reach = 1.1 * np.abs(samples).max()
    edges = np.linspace(-reach, reach, 121)
    counts, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=[edges, edges])
    density = gaussian_filter(counts, sigma=2)
    ranked = np.sort(density.ravel())[::-1]
    held = np.cumsum(ranked) / ranked.sum()
    levels = [ranked[np.searchsorted(held, mass)] for mass in MASSES]
    centers = (edges[:-1] + edges[1:]) / 2
    axes.contour(centers, centers, density.T, levels=np.unique(levels), colors=INK, linewidths=0.8, alpha=0.8)
