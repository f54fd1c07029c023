"""What is drawn: from tensors to figures. Nothing here knows a model or a logger."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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


def pictures(rows: Tensor, title: str, column_labels: Sequence[str] = ()) -> Figure:
    """A table of pictures.

    Args:
        rows: (R, K, C, H, W) in [0, 1], gray (C = 1) or RGB (C = 3); values outside are clipped.
        title: above the table.
        column_labels: K texts above the columns, or none.
    """
    r, k, c, h, w = rows.shape
    gap = 1
    canvas = np.ones((r * (h + gap) + gap, k * (w + gap) + gap, c))
    tiles = rows.clamp(0, 1).permute(0, 1, 3, 4, 2).cpu().numpy()
    for i in range(r):
        for j in range(k):
            top, left = gap + i * (h + gap), gap + j * (w + gap)
            canvas[top : top + h, left : left + w] = tiles[i, j]
    tile = 0.55  # inches
    figure = Figure(figsize=(k * tile + 0.6, r * tile + 0.45), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    axes.imshow(canvas.squeeze(2) if c == 1 else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xticks([gap + (j + 0.5) * (w + gap) for j in range(len(column_labels))], column_labels)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure


def latent_map(z: Tensor, y: Tensor, prior: Tensor, title: str) -> Figure:
    """Codes colored by label over the prior's contours, in the first two dimensions.

    The contours hold 50, 90 and 99 % of the prior. They are measured on its samples, so that a prior need
    not know its density.

    Args:
        z: (N, D) codes, D >= 2.
        y: (N,) labels.
        prior: (M, D) samples of the prior, 100,000 or more for smooth contours.
        title: above the map.
    """
    points, samples = z[:, :2].cpu().numpy(), prior[:, :2].cpu().numpy()
    reach = 1.05 * max(np.quantile(np.abs(points), 0.999), np.quantile(np.abs(samples), 0.9999))
    figure, axes = _map(points, y.cpu().numpy(), reach, title)
    _contours(axes, samples)
    axes.set_xlabel("$z_1$", color=INK)
    axes.set_ylabel("$z_2$", color=INK)
    return figure


def representation(points: Tensor, y: Tensor, heads: Tensor, title: str) -> Figure:
    """Points colored by label, and the heads of their clusters, numbered.

    Args:
        points: (N, 2).
        y: (N,) labels.
        heads: (K, 2).
        title: above the map.
    """
    places, centers = points.cpu().numpy(), heads.cpu().numpy()
    reach = 1.05 * max(np.quantile(np.abs(places), 0.999), np.abs(centers).max())
    figure, axes = _map(places, y.cpu().numpy(), reach, title)
    for k, center in enumerate(centers):
        axes.annotate(
            str(k), center, ha="center", va="center", fontsize=9, color="white",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": INK, "edgecolor": "white"},
        )  # fmt: skip
    return figure


def _map(
    points: NDArray[np.float32], labels: NDArray[np.int64], reach: float, title: str
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.6, 5.6), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    # in the order of the split, so that no class covers the others
    colors = np.array(PALETTE)[labels % len(PALETTE)]
    axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.7, linewidths=0, c=colors)
    for k in np.unique(labels):
        axes.scatter([], [], color=PALETTE[k % len(PALETTE)], label=str(k))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_title(title, color=INK, fontsize=11)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", title="label", frameon=False)
    return figure, axes


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
