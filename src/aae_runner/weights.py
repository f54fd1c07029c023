"""The weights of an earlier run, with which another starts."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Size, Tensor

from aae_runner.config import Config
from aae_runner.errors import CheckpointError, ConfigError
from aae_runner.model import Model

FILE = "model.safetensors"

AND = " and "
"""Between labelled subsets."""


class Start(NamedTuple):
    """Whose weights a run started with."""

    file: str
    sha256: str
    """Of the file."""
    taken: list[str]
    """The parts that are the earlier run's."""
    anew: list[str]
    """Those that were drawn."""
    labels: str
    """The labelled subsets of the earlier run and of those before it that are others: with them, more labels
    have been seen."""

    def __str__(self) -> str:
        anew = f"; {', '.join(self.anew)} drawn anew" if self.anew else ""
        labels = f" It has learned from other labels too: {self.labels}." if self.labels else ""
        return (
            f"Started with {', '.join(self.taken)} of {self.file} (sha256 {self.sha256[:10]}){anew}.{labels}"
        )


def start_with(model: Model, config: Config) -> Start:
    """Takes over the encoder of an earlier run, those heads that fit and, where all do, join and decoder.

    A part fits if it has the same tensors, of the same shapes, and a fixed W_C if it is the same.

    Args:
        model: changed in place.
        config: of the run that starts; `weights` is the folder of a finished run, or that of several seeds'
            runs: then the one of the same seed is taken.

    Raises:
        ConfigError: there is no finished run, or its encoder does not fit.
        CheckpointError: its file is damaged.
    """
    assert config.weights is not None
    folder = Path(config.weights).expanduser()
    own_seed = f"seed{config.seed}"
    path = next((one for one in (folder / FILE, folder / own_seed / FILE) if one.is_file()), None)
    if path is None:
        raise ConfigError(
            f"weights={config.weights}: neither it nor its folder {own_seed} is a finished run (no {FILE}). "
            "`aae report` lists finished ones."
        )
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, "pt") as file:
            given = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told = json.loads(file.metadata()["config"])
        results = path.with_name("results.json")
        before = json.loads(results.read_text(encoding="utf-8")).get("start") if results.is_file() else None
        seen = [_labelled(told["data"], told["seed"]), *(before["labels"].split(AND) if before else ())]
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"weights={config.weights}: {path} is damaged ({error}).") from error
    own = model.state_dict()
    for key in own:
        if key.endswith(".members"):  # in a run that merges nothing each cluster is itself, as here still
            given.setdefault(key, own[key])
    heads, rest = [f"heads.{name}" for name in model.heads], ["join", "decoder"]
    encoder, heads, rest = (
        [part for part in some if _shapes(own, part)] for some in (["encoder"], heads, rest)
    )

    constants = {f"join.{name}" for name, _ in model.join.named_buffers()} if model.join else set()
    other_join = any(key not in given or not own[key].equal(given[key]) for key in constants & own.keys())

    def fitting(parts: list[str]) -> list[str]:
        alike = [part for part in parts if _shapes(own, part) == _shapes(given, part)]
        return [part for part in alike if not (part == "join" and other_join)]

    taken = fitting(encoder)
    if not taken:
        raise ConfigError(
            f"weights={config.weights}: the encoder of {path} is not of this network. Choose the same "
            "network.encoder, or leave weights out."
        )
    taken += fitting(heads)
    if taken == encoder + heads and fitting(rest) == rest:
        taken += rest
    begins = tuple(f"{part}." for part in taken)
    model.load_state_dict({key: given[key] for key in own if key.startswith(begins)}, strict=False)
    anew = [part for part in encoder + heads + rest if part not in taken]
    ours = _labelled(config.data, config.seed)
    others = dict.fromkeys(one for one in seen if one not in ("", ours))
    return Start(str(path), digest, taken, anew, AND.join(others))


def _shapes(tensors: Mapping[str, Tensor], part: str) -> dict[str, Size]:
    return {key: tensor.shape for key, tensor in tensors.items() if key.startswith(f"{part}.")}


def _labelled(data: Mapping[str, Any], seed: int) -> str:
    """Which labels a run may use, as one would set it."""
    own = data["label_seed"]
    drawn = "" if data["labels"] == "all" else f" data.label_seed={seed if own is None else own}"
    subset = f"data.labels={data['labels']}{drawn}"
    train_on = data.get("train_on", "train")
    return subset if train_on == "train" else f"{subset} data.train_on={train_on}"
