"""The weights of an earlier run, with which another starts."""

import hashlib
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from aae_runner.errors import CheckpointError, ConfigError
from aae_runner.model import Model

FILE = "model.safetensors"


def start_with(model: Model, weights: str, seed: int) -> str:
    """Takes over those parts of an earlier run's model that fit: encoder, each head, join, decoder.

    A part fits if all of its tensors are there with the shapes of ours; one that does not stays as it is.

    Args:
        model: changed in place.
        weights: folder of a finished run, or of several seeds' runs: then that of `seed` is taken.
        seed: of the run that starts.

    Returns:
        What was taken, in a sentence.

    Raises:
        ConfigError: there is no finished run, or no part of it fits.
        CheckpointError: its file is damaged.
    """
    folder = Path(weights).expanduser()
    path = next((one for one in (folder / FILE, folder / f"seed{seed}" / FILE) if one.is_file()), None)
    if path is None:
        raise ConfigError(
            f"weights={weights}: neither it nor its folder seed{seed} is a finished run (no {FILE}). "
            "`aae report` lists finished ones."
        )
    try:
        content = path.read_bytes()
        given = safetensors.torch.load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"weights={weights}: {path} cannot be read ({error}).") from error
    names = ["encoder", *(f"heads.{name}" for name in model.heads), "join", "decoder"]
    parts = {name: part for name, part in model.named_modules() if name in names and part.state_dict()}
    taken, others = [], []
    for name, part in parts.items():
        own = part.state_dict()
        found = {key: given[f"{name}.{key}"] for key in own if f"{name}.{key}" in given}
        if len(found) == len(own) and all(found[key].shape == own[key].shape for key in own):
            part.load_state_dict(found)
            taken.append(name)
        else:
            others.append(name)
    if not taken:
        raise ConfigError(
            f"weights={weights}: no part of {path} fits this model ({', '.join(others)}). "
            "Name a run with the same network, or heads of the same names and sizes."
        )
    digest = hashlib.sha256(content).hexdigest()[:10]
    left = f"; {', '.join(others)} drawn anew" if others else ""
    return f"Started with {', '.join(taken)} of {path} (sha256 {digest}){left}."
