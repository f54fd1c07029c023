"""Images on the device, the labelled subset, and minibatches as a function of the step."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from aae_runner.config import Facts
from aae_runner.errors import ConfigError, DataError
from aae_runner.words import counted


@dataclass(frozen=True)
class Images:
    """A split: `x` (N, C, H, W) uint8 and `y` (N,) int64, on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice | Tensor) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: torch.device) -> "Images":
        """The same split on another device."""
        return Images(self.x.to(device), self.y.to(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, as floats in [0, 1], and labels; at most `size` at a time, in equal parts."""
        parts = max(1, -(-len(self) // size))
        for x, y in zip(self.x.tensor_split(parts), self.y.tensor_split(parts), strict=True):
            yield normalize(x), y


class Splits(NamedTuple):
    """What a data set's `read()` returns; the splits never depend on a seed."""

    train: Images
    valid: Images
    test: Images
    note: str = ""
    """What a reader of a score must know, such as that the files are not the official ones."""
    names: Sequence[str] = ()
    """Of the classes, where the data themselves tell; their number is compared with what the yaml states."""


class Batch(NamedTuple):
    """A minibatch as the phases see it."""

    x: Tensor
    """(B, C, H, W), clean, in [0, 1]: the target of reconstruction."""
    x_in: Tensor
    """(draws, B, C, H, W), what the encoder sees: x, corrupted so often, each time anew."""
    y: Tensor
    """(B,) int64; `classes` stands for an image whose label is hidden."""


def normalize(x: Tensor) -> Tensor:
    """uint8 pixels -> floats in [0, 1]."""
    return x / 255


def derive_seed(*parts: int | str) -> int:
    """A seed that is a function of its parts alone, so that no generator's state need be kept."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes 63 bits


def labelled_subset(y: Tensor, classes: int, labels: int, seed: int) -> Tensor:
    """Indices of `labels` images, balanced over classes as evenly as the number divides.

    Args:
        y: (N,), all labels.
        classes: number of classes.
        labels: how many to draw, at most N. A class that has too few gives all it has.
        seed: decides which.

    Returns:
        (labels,) indices, in random order.
    """
    generator = torch.Generator().manual_seed(derive_seed("labels", seed))
    order = torch.randperm(len(y), generator=generator)
    # the r-th image of a class ranks in the r-th round, so every prefix is as balanced as can be
    rank = torch.empty_like(order)
    for place, k in enumerate(torch.randperm(classes, generator=generator)):
        mine = order[y[order] == k]
        rank[mine] = torch.arange(len(mine)) * classes + place
    chosen = rank.argsort()[:labels]
    return chosen[torch.randperm(labels, generator=generator)]


class Sampler:
    """Passes without replacement over n images, as a function of the step.

    The passes follow one another seamlessly: a minibatch may hold the end of one and the start of the next.

    Args:
        n: number of images.
        batch: minibatch size; at most n are drawn at once.
        seed: decides the order of each pass.
        device: where the indices lie.
    """

    def __init__(self, n: int, batch: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.n, self.batch, self.seed, self.device = n, min(batch, n), seed, torch.device(device)
        self._passes: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """(batch,) indices of the images of this step."""
        start = step * self.batch
        number, offset = divmod(start, self.n)
        order = self._order(number)[offset : offset + self.batch]
        missing = self.batch - len(order)
        return torch.cat([order, self._order(number + 1)[:missing]]) if missing else order

    def _order(self, number: int) -> Tensor:
        if number not in self._passes:
            generator = torch.Generator().manual_seed(derive_seed("pass", self.seed, number))
            self._passes = {k: order for k, order in self._passes.items() if k == number - 1}
            order = torch.randperm(self.n, generator=generator, pin_memory=self.device.type == "cuda")
            self._passes[number] = order.to(self.device, non_blocking=True)  # so that no step waits for it
        return self._passes[number]


class Corruption(nn.Module):
    """What the encoder's input suffers in training; the reconstruction target never does.

    Args:
        noise: standard deviation of Gaussian noise added to each pixel, in units of the pixel range.
        dropout: share of pixels set to 0 (without rescaling the others).
        draws: corrupted copies of each image; see `Model.infer`.
    """

    def __init__(
        self,
        *,
        noise: Annotated[float, Ge(0)],
        dropout: Annotated[float, Ge(0), Lt(1)],
        draws: Annotated[int, Ge(1)] = 1,
    ) -> None:
        super().__init__()
        self.noise, self.dropout, self.draws = noise, dropout, draws

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (draws, B, C, H, W)."""
        x = x.expand(self.draws, *x.shape)
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        if self.dropout:
            x = x * (torch.rand_like(x) >= self.dropout)
        return x


class Data:
    """The splits of a data set and the minibatches drawn from its training split.

    Two streams: `all` has every training image, `labelled` those whose labels may be used. In `all`, too,
    only images of the labelled subset carry their label; the others' is hidden (`classes`).

    Args:
        splits: as read.
        facts: what the yaml states about them.
        seed: of the run.
        batch: minibatch size.
        corrupt: from clean images to what the encoder sees.
        device: where the images lie from now on.

    Raises:
        DataError: the tensors are not what the yaml states.
        ConfigError: more labels are asked for than there are.
    """

    def __init__(
        self,
        splits: Splits,
        facts: Facts,
        *,
        seed: int,
        batch: int,
        corrupt: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        compare(splits, facts)
        train, note = splits.train, splits.note
        if facts.train_on == "train+valid":
            train = Images(torch.cat([train.x, splits.valid.x]), torch.cat([train.y, splits.valid.y]))
            learned = "valid/ is of images learned from (data.train_on=train+valid)"
            note = f"{note}; {learned}" if note else learned
        n = len(train)
        labels = n if facts.labels == "all" else facts.labels
        if labels > n:
            raise ConfigError(
                f"data.labels={labels}: the training split holds {n:,} images. Allowed: 2 to {n}, or all."
            )
        label_seed = seed if facts.label_seed is None else facts.label_seed
        self.facts, self.note, self.device = facts, note, device
        self.names = splits.names or [str(k) for k in range(facts.classes)]
        self.fingerprint = _fingerprint(splits)
        self.train, self.valid, self.test = (split.to(device) for split in (train, *splits[1:3]))
        chosen = labelled_subset(train.y, facts.classes, labels, label_seed)
        self._chosen = chosen.to(device)
        hidden = torch.full_like(self.train.y, facts.classes)
        hidden[self._chosen] = self.train.y[self._chosen]
        self._hidden = Images(self.train.x, hidden)
        self._samplers = {
            "all": Sampler(n, batch, derive_seed("all", seed), device),
            "labelled": Sampler(labels, batch, derive_seed("labelled", seed), device),
        }
        self.steps_per_epoch = -(-n // min(batch, n))
        self._corrupt = corrupt

    @property
    def labelled(self) -> Images:
        """The images whose labels may be used."""
        every = len(self._chosen) == len(self.train)  # then no copy is needed
        return self.train if every else self.first("labelled", len(self._chosen))

    def first(self, stream: str, n: int) -> Images:
        """The first n images of a stream, with the labels that it shows."""
        return self._hidden[:n] if stream == "all" else self.train[self._chosen[:n]]

    def draw(self, stream: str, step: int) -> Batch:
        """The minibatch of a step; its corruption is drawn from torch's global generator."""
        return self.gather(stream, self.indices(stream, step))

    def indices(self, stream: str, step: int) -> Tensor:
        """Of the images of a step, (batch,), on the device."""
        indices = self._samplers[stream].indices(step)
        return indices if stream == "all" else self._chosen[indices]

    def gather(self, stream: str, indices: Tensor) -> Batch:
        """The minibatch of these images; see `draw`."""
        drawn = (self._hidden if stream == "all" else self.train)[indices]
        x = normalize(drawn.x)
        return Batch(x=x, x_in=self._corrupt(x), y=drawn.y)

    def split(self, name: str) -> Images:
        """`train`, `valid` or `test`."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def _fingerprint(splits: Splits) -> str:
    """SHA-256 over all splits: images and labels."""
    digest = hashlib.sha256()
    for split in splits[:3]:
        for tensor in (split.x, split.y):
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def compare(splits: Splits, facts: Facts) -> None:
    """Compares what was read with what the config states.

    Raises:
        DataError: they differ, or a split is too small.
    """
    if len(splits.names) not in (0, facts.classes):
        raise DataError(
            f"data: there are {len(splits.names)} classes, but data.classes={facts.classes} is stated. "
            f"Set data.classes={len(splits.names)}."
        )
    for name, split in zip(("train", "valid", "test"), splits[:3], strict=True):
        found: tuple[Any, ...] = (tuple(split.x.shape[1:]), split.x.dtype, len(split.x))
        stated: tuple[Any, ...] = (tuple(facts.shape), torch.uint8, len(split.y))
        if found != stated:
            raise DataError(
                f"data: the {name} images have (shape, type, number) {found}, but {stated} is stated "
                "by data.shape and the labels."
            )
        if len(split) < 2:
            raise DataError(
                f"data: the {name} split has {counted(len(split), 'image')}; at least 2 are needed."
            )
        if not 0 <= int(split.y.min()) <= int(split.y.max()) < facts.classes:
            raise DataError(
                f"data: the {name} labels lie in {int(split.y.min())} to {int(split.y.max())}, "
                f"but data.classes={facts.classes} allows 0 to {facts.classes - 1}."
            )
