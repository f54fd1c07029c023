"""A finished run, opened again. Nothing in its folder is executed or believed: its config is checked anew."""

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from torch import Tensor
from yaml import YAMLError

from aae_runner.build import Builder
from aae_runner.config import Component, Config, check, nearest
from aae_runner.data import Data, normalize
from aae_runner.environment import give_back_memory, use_own_cores
from aae_runner.errors import CheckpointError, ConfigError
from aae_runner.evaluators import Findings, Snapshot
from aae_runner.evaluators.snapshot import CHUNK, one_of
from aae_runner.experiment import choose_device, evaluate, read_data
from aae_runner.latents import Categorical, Codes, TrueLabel
from aae_runner.model import Model
from aae_runner.parts import Parts, build_parts
from aae_runner.precision import exact_products
from aae_runner.priors import Categorical as CategoricalPrior
from aae_runner.priors import Prior
from aae_runner.series import BEGUN
from aae_runner.weights import FILE


class Curve(NamedTuple):
    """A scalar over training, to be drawn with `plot(*curve)`."""

    steps: NDArray[np.int64]
    """(N,), finished steps."""
    values: NDArray[np.float64]
    """(N,)."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that came to its end.

    Its data are read when first asked for: by `data`, `snapshot` or `evaluate`, and lie where it computes.
    Images and codes that its methods are given may lie on any device; those that they return lie on the CPU.
    """

    folder: Path
    config: Config
    results: dict[str, Any]
    """The content of results.json."""
    parts: Parts
    """What the config describes: the model with its final weights, in evaluation mode, priors, evaluators."""
    build: Builder
    device: torch.device
    """Where it computes."""

    def __repr__(self) -> str:
        return f"Finished({str(self.folder)!r})"

    @property
    def model(self) -> Model:
        """With the final weights, in evaluation mode."""
        return self.parts.model

    @property
    def priors(self) -> Mapping[str, Prior]:
        """By the name of their head."""
        return self.parts.priors

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        channels, height, width = self.config.data["shape"]
        return channels, height, width

    @property
    def inferred(self) -> list[str]:
        """The heads whose code is inferred from an image: all but a true label, which is given."""
        return [name for name, head in self.model.heads.items() if not isinstance(head, TrueLabel)]

    @cached_property
    def metrics(self) -> dict[str, Curve]:
        """Every loss, learning rate and metric of metrics.jsonl, by its scalar tag.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        path = self.folder / "metrics.jsonl"
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                for tag in row.keys() - {"step", "epoch"}:
                    found[tag].append((row["step"], row[tag]))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: missing or damaged ({error}).") from error
        return {tag: Curve(*map(np.array, zip(*found[tag], strict=True))) for tag in sorted(found)}

    @cached_property
    def data(self) -> Data:
        """What it was trained on.

        Raises:
            DataError: the data are missing or damaged.
            CheckpointError: they are others than in training.
        """
        with _of_run(self.folder):
            data = read_data(self.config, self.build, self.parts.corrupt, self.device)
        if data.fingerprint != self.results["data"]["fingerprint"]:
            raise CheckpointError(
                f"{self.folder}: the data are not those that this run was trained on. Say where those lie "
                "(--data-root, or data_root)."
            )
        return data

    def snapshot(self, split: str) -> Snapshot:
        """The model, to be looked at with a split: `train`, `valid` or `test`."""
        return Snapshot(
            self.model, self.priors, self.data, one_of(("train", "valid", "test"), split, "split")
        )

    def evaluate(self, split: str = "test") -> Findings:
        """Metrics and figures that the run's evaluators find on a split; on `test`, those of results.json."""
        return evaluate(self.parts.evaluators, self.snapshot(split), self.config.seed)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """The codes of images: z, and y as probabilities.

        Args:
            x: (N, C, H, W), uint8 or floats in [0, 1].

        Returns:
            (N, size) by head, of the `inferred` ones. Of a Gaussian q(z|x), the means.

        Raises:
            ConfigError: these are no such images.
        """
        codes = self._codes(x)
        return {name: torch.cat([part[name].value for part in codes]).cpu() for name in self.inferred}

    def classify(self, x: Tensor) -> Tensor:
        """The most probable class (or cluster) of images under q(y|x), (N,) int64.

        Args:
            x: as for `encode`.

        Raises:
            ConfigError: these are no such images, or the run has no q(y|x).
        """
        heads = [name for name, head in self.model.heads.items() if isinstance(head, Categorical)]
        if not heads:
            raise ConfigError(
                f"{self.folder}: has no categorical head, so it cannot classify. Its heads: "
                f"{', '.join(self.model.heads)}."
            )
        return torch.cat([part[heads[0]].parameters.argmax(1) for part in self._codes(x)]).cpu()

    def decode(self, values: Mapping[str, Tensor]) -> Tensor:
        """The images (N, C, H, W) of codes.

        Args:
            values: (N, size) of every head; of a label, probabilities or one-hots.

        Raises:
            ConfigError: a head is missing or of another size, or this run has no decoder.
        """
        n = len(next(iter(values.values()), ()))
        needed: dict[str, Any] = {name: (n, head.size) for name, head in self.model.heads.items()}
        given = {name: tuple(value.shape) for name, value in values.items()}
        if given != needed:
            wanted = ", ".join(f"{name} of shape (N, {size})" for name, (_, size) in needed.items())
            raise ConfigError(f"codes: {given}. Allowed: {wanted}, and nothing else.")
        images = []
        with torch.no_grad(), exact_products():
            for start in range(0, max(n, 1), CHUNK):
                part = {name: value[start : start + CHUNK] for name, value in values.items()}
                decoded = self.model.decode(
                    {name: value.to(self.device, torch.float32) for name, value in part.items()}
                )
                images.append(decoded.cpu())
        return torch.cat(images)

    def draw(self, n: int, label: int | None = None) -> dict[str, Tensor]:
        """Codes from the priors, (n, size) by head, as a function of torch's global generator.

        Args:
            n: how many.
            label: the class or cluster of all of them: y is its one-hot, and z, where the run told its
                discriminators the label, comes from the label's part of the prior. None: any.

        Raises:
            ConfigError: a head has no prior, or there is no such label.
        """
        for name in self.model.heads:
            if name not in self.priors:
                raise ConfigError(f"{self.folder}: its head {name} has no prior, so none can be drawn.")
        if label is not None and label not in self.labels:
            known = f"0 to {len(self.labels) - 1}" if self.labels else "none, for its priors know no classes"
            allowed = known if self.labels == [*range(len(self.labels))] else ", ".join(map(str, self.labels))
            raise ConfigError(f"class {label}: {self.folder} has no such class. Allowed: {allowed}.")
        codes = {}
        for name in self.model.heads:
            labels = None
            if label is not None and name in self._told:
                labels = torch.full((n,), label, device=self.device)
            codes[name] = self.priors[name].sample(n, labels).cpu()
        return codes

    def sample(self, n: int, label: int | None = None) -> Tensor:
        """The images (n, C, H, W) of codes from the priors; see `draw`."""
        return self.decode(self.draw(n, label))

    @property
    def labels(self) -> list[int]:
        """Classes or clusters that codes can be drawn of; none, if its priors know none."""
        return min(self._told.values(), key=len, default=[])

    @property
    def _told(self) -> dict[str, list[int]]:
        """Priors that mean something by a label, with those that they know."""
        known = [k for phase in self.parts.phases.values() if (k := getattr(phase, "condition", None))]
        told = {}
        for name, prior in self.priors.items():
            if isinstance(prior, CategoricalPrior):
                told[name] = self.model.classes(name)
            elif prior.parts is not None and known:
                told[name] = list(range(min(prior.parts, *known)))
        return told

    def _codes(self, x: Tensor) -> list[Codes]:
        """Of the images, in parts that fit into memory."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.shape or x.dim() != 4:
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ConfigError(
                f"images: {given}. Allowed: a tensor of shape (N, {', '.join(map(str, self.shape))})."
            )
        if x.dtype != torch.uint8 and not (x.is_floating_point() and bool(((x >= 0) & (x <= 1)).all())):
            raise ConfigError(f"images: {x.dtype}. Allowed: uint8, or floats from 0 to 1.")
        codes = []
        with torch.no_grad(), exact_products():
            for part in x.split(CHUNK):
                moved = part.to(self.device)
                images = normalize(moved) if moved.dtype == torch.uint8 else moved.float()
                hidden = torch.full((len(images),), self.config.data["classes"], device=self.device)
                codes.append(self.model.encode(images, hidden))
        return codes


def _evaluators(folder: Path, config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    known = [*config.evaluators, *(one.split(".")[1] for one in overrides if "._target_=" in one)]
    for one in overrides:
        if not re.fullmatch(r"evaluators\.[^.=]+(\.[^.=]+)*=.*", one, re.DOTALL):
            raise ConfigError(
                f"{one}: what was trained stays as it is. Allowed: evaluators.NAME.KEY=VALUE, or "
                "evaluators.NAME=null to leave one out."
            )
        if (name := re.split("[.=]", one)[1]) not in known:
            raise ConfigError(f"{one}: {folder} has no evaluator {name}.{nearest(name, known)}")
    try:
        asked = OmegaConf.from_dotlist(list(overrides))
        merged: Any = OmegaConf.to_container(OmegaConf.merge({"evaluators": config.evaluators}, asked))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}.") from error
    left = {name: node for name, node in merged["evaluators"].items() if node is not None}
    checked: dict[str, Any] = check(dict[str, Component], left, "evaluators")
    return checked


@contextlib.contextmanager
def _of_run(folder: Path) -> Iterator[None]:
    """Says which run's config it is that cannot be."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error


def open_run(
    folder: str | Path,
    *,
    data_root: str | Path | None = None,
    config_dirs: Sequence[str | Path] = (),
    trusted: Sequence[str] = (),
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> Finished:
    """Opens the folder of a finished run; its data are not read yet.

    Args:
        folder: of the run, with results.json and model.safetensors.
        data_root: where its data lie now; None: where they lay.
        config_dirs: your folders of yaml and classes.
        trusted: modules whose classes the run may name; its own `trusted` is ignored.
        device: where it will compute: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:0`, ...
        overrides: how its evaluators shall look now, such as `evaluators.log_likelihood.samples=10000000`.

    Raises:
        ConfigError: the folder holds no finished run, or one that this program cannot build.
        CheckpointError: its files are damaged, or not of one model.
    """
    folder = Path(folder)
    for name in ("results.json", FILE):
        if not (folder / name).is_file():
            begun = any((folder / name).exists() for name in BEGUN)
            unfinished = "not finished; the command that started it continues it"
            why = unfinished if begun else "no finished run"
            raise ConfigError(f"{folder}: {why} (no {name}). `aae report` lists finished ones.")
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        config: Config = check(Config, results["config"], "")
        results["data"]["fingerprint"]
    except ConfigError as error:
        raise ConfigError(f"{folder / 'results.json'}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'results.json'}: damaged or unreadable ({error}).") from error
    if data_root is not None and "root" in config.data:  # embedded data lie nowhere
        config = replace(config, data={**config.data, "root": str(data_root)})
    if overrides:
        config = replace(config, evaluators=_evaluators(folder, config, overrides))
    use_own_cores()
    give_back_memory()
    build, where = Builder(trusted, [Path(one).absolute() for one in config_dirs]), choose_device(device)
    with _of_run(folder):
        parts = build_parts(config, build)
    path = folder / FILE
    try:
        parts.model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged, unreadable, or of another model ({reason}).") from error
    for module in (parts.model, parts.corrupt, *parts.priors.values()):
        module.to(where)
    parts.model.eval()
    return Finished(folder, config, results, parts, build, where)
