"""The configuration: what it may contain, where it stands, and which run it names.

Hydra composes it from `conf/`; everything after that (unknown keys, types, ranges, what a run is called)
is decided here, from the annotations below and, for each component, from those of its constructor.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Len, Lt
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from aae_runner.errors import ConfigError
from aae_runner.words import allowed, is_union

_INSTALLED = Path(__file__).parent / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
"""The folder of the config groups: inside an installed package, or at the top of a checkout."""


def _has_target(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("needs a `_target_`, the dotted name of a class")
    return node


Component = Annotated[dict[str, Any], AfterValidator(_has_target)]
"""A class by its dotted name (`_target_`) and the keyword arguments of its constructor."""

Decay = Literal["linear", "cosine"] | list[tuple[Annotated[int, Ge(0)], Annotated[float, Gt(0)]]] | None
"""How learning rates fall: over the whole run to (almost) 0, by factors at given epochs, or (null) never.

Pairs, for a mapping would be merged with the one that it is meant to replace.
"""


@dataclass(kw_only=True)
class Network:
    """What the model is made of, and how its input is corrupted in training."""

    encoder: Component
    decoder: Component
    discriminator: Component
    corruption: Component
    output: Literal["sigmoid", "linear"]
    init_std: Annotated[float, Gt(0)] | None


@dataclass(kw_only=True)
class Facts:
    """What every data set states beside how it is read.

    Args:
        shape: channels (1 or 3), height, width.
        classes: number of classes; any from 2 where there are no labels.
        labels: training images whose label may be used, evenly of each class: a number, or all.
        label_seed: seed that draws them; null: that of the run.
        train_on: train, or train+valid: from the validation images too is learned, once settings are chosen.
    """

    shape: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)]
    classes: Annotated[int, Ge(2)]
    labels: Annotated[int, Ge(2)] | Literal["all"]
    label_seed: Annotated[int, Ge(0)] | None
    train_on: Literal["train", "train+valid"] = "train"


@dataclass(kw_only=True)
class Schedule:
    """When and how fast: `phases.<phase>` has `every`, `start`, `decay` and an optimizer per update."""

    epochs: Annotated[int, Ge(1)]
    batch: Annotated[int, Ge(2)]
    default: Component
    decay: Decay
    phases: dict[str, dict[str, Any]]


@dataclass(kw_only=True)
class Timing:
    """When a phase runs, and how its rates fall.

    Args:
        every: steps between two of its updates.
        start: epochs before the first; a fraction is allowed.
        decay: of its rates, as in the schedule; []: none; null: the schedule's own.
    """

    every: Annotated[int, Ge(1)] = 1
    start: Annotated[float, Ge(0), Lt(math.inf)] = 0.0
    decay: Decay = None


@dataclass(kw_only=True)
class Logging:
    """Steps between two rows of metrics.jsonl; whether to draw a bar (null: where there is a terminal)."""

    every: Annotated[int, Ge(1)]
    progress: bool | None


@dataclass(kw_only=True)
class Checkpointing:
    """Minutes and (null: no matter how many) steps between two saved states.

    One is saved in any case when a run ends or is interrupted.
    """

    minutes: Annotated[float, Gt(0)]
    steps: Annotated[int, Ge(1)] | None


@dataclass(kw_only=True)
class Reference:
    """A number of the paper, shown beside ours.

    Args:
        metric: its name in results.json.
        value: in the metric's unit; rates are fractions.
        deviation: its standard deviation; null: not told.
        source: where it stands in the paper.
    """

    metric: str
    value: float
    deviation: float | None = None
    source: str


@dataclass(kw_only=True)
class Config:
    """A whole run. `conf/config.yaml` explains each key."""

    data: Component
    network: Network
    heads: dict[str, Component]
    prior: Component
    priors: dict[str, Component]
    join: Component | None
    phases: dict[str, Component]
    evaluators: dict[str, Component]
    schedule: Schedule
    seed: Annotated[int, Ge(0)]
    runs: str
    resume: bool
    device: str
    precision: Literal["auto", "highest", "high", "medium"]
    engine: Literal["auto", "eager", "compile", "graph"]
    trusted: list[str]
    reference: Reference | None
    # keys that runs of an earlier version do not have, and can be opened all the same
    objective: str | None = None
    weights: str | None = None
    autocast: bool | Literal["force"] = False
    logging: Logging
    checkpoint: Checkpointing


CONSTANT_KEYS = (
    "seed", "runs", "resume", "device", "engine", "trusted", "reference", "objective", "logging",
    "checkpoint", "schedule.epochs", "data.download",
)  # fmt: skip
"""Keys that do not change what a run learns, or only how long: they are no part of its identity."""


LATER_KEYS = {
    f"{place}{field.name}": field.default
    for place, owner in (("", Config), ("data.", Facts))
    for field in dataclasses.fields(owner)
    if field.default is not dataclasses.MISSING
}
"""What the keys stand for that runs of an earlier version do not have."""


def choices(group: str, *more: Path) -> dict[str, str]:
    """The configs of a group, here and in more folders, each with the first comment of its file."""
    files = [file for folder in (CONF, *more) for file in sorted((folder / group).glob("*.yaml"))]
    return {file.stem: _first_comment(file) for file in files}


def _first_comment(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not in UTF-8. Save it so.") from error
    lines = (line.removeprefix("#").strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("@package")), "")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Ends a sentence about an unknown name: the closest allowed one, and all of them."""
    allowed = [one for one in allowed if not one.startswith("_")]
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]}?" if close else ""
    return f"{guess} Allowed: {', '.join(allowed) or 'nothing'}."


def settle(composed: DictConfig) -> Config:
    """Resolves and checks a composed config.

    Raises:
        ConfigError: an unknown, missing or ill-typed key, or a value out of range, by its full path.
    """
    for field in dataclasses.fields(Config):
        if field.name not in composed:
            hint = f" Choose one: {', '.join(choices(field.name))}." if choices(field.name) else ""
            raise ConfigError(f"{field.name}=null: a run cannot do without it.{hint}")
    try:
        tree: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    for group in ("heads", "priors", "phases", "evaluators"):  # null switches an entry off
        if isinstance(tree[group], dict):
            tree[group] = {name: node for name, node in tree[group].items() if node is not None}
    config: Config = check(Config, tree, "")
    if config.weights:
        config.weights = str(Path(config.weights))  # runs/a/ and runs/a have one identity
    for key, path in (("runs", config.runs), ("weights", config.weights or "")):
        try:
            Path(path).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"{key}={path}: there is no such home. Name another folder.") from error
    if not config.phases:
        raise ConfigError("phases: all are switched off, so nothing would be learned. Leave one on.")
    known = [*config.phases, *choices("phase")]
    for name in config.schedule.phases:
        if name not in known:
            raise ConfigError(f"schedule.phases.{name} names no phase.{nearest(name, known)}")
    return config


def check(annotation: Any, value: Any, key: str) -> Any:
    """The value as the annotation wants it.

    Raises:
        ConfigError: it does not fit; the message has the full key path, the value and what is allowed.
    """
    try:
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        adapter: TypeAdapter[Any] = (
            TypeAdapter(annotation)
            if dataclasses.is_dataclass(annotation)
            else TypeAdapter(annotation, config=config)
        )
        return adapter.validate_python(value, extra="forbid")
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(annotation, value, key, error))) from error


def _sentences(annotation: Any, value: Any, key: str, error: ValidationError) -> list[str]:
    wrong: dict[str, list[str]] = {}  # by key and value: what each branch of a union says of it
    for problem in error.errors(include_url=False):
        location, owner, wanted = _follow(problem["loc"], annotation, value)
        path = ".".join([key, *location] if key else location)
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = [field.name for field in dataclasses.fields(owner)] if owner else []
            wrong[f"{path} is not a key of the configuration.{nearest(location[-1], known)}"] = []
        elif problem["type"] == "missing" and isinstance(problem["input"], list):
            wrong[f"{path}={json.dumps(problem['input'])}: has too few values."] = []
        elif problem["type"] in ("missing", "missing_argument"):
            wrong[f"{path} is not set, and has no default."] = []
        elif is_union(wanted) and "anything" not in allowed(wanted):  # or each branch would have its say
            what = json.dumps(problem["input"], default=str)
            wrong[f"{path}={what} is not allowed. Allowed: {allowed(wanted)}."] = []
        elif problem["type"] != "is_instance_of":  # a branch that no yaml can take
            says = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
            wrong.setdefault(f"{path}={json.dumps(problem['input'], default=str)}", []).append(says)
    return [f"{what}: {', or '.join(says)}." if says else what for what, says in wrong.items()]


def _follow(location: tuple[int | str, ...], annotation: Any, value: Any) -> tuple[list[str], Any, Any]:
    """The keys of the user's in pydantic's location, which also names branches of unions.

    Returns:
        The keys, the owner of the last, and what it is to be, as far as annotations say.
    """
    keys: list[str] = []
    owner = None
    for place, one in enumerate(location):
        last = place == len(location) - 1
        annotation = next(filter(dataclasses.is_dataclass, get_args(annotation)), annotation)  # of X | None
        holds = (isinstance(value, dict) and one in value) or (
            isinstance(value, list) and isinstance(one, int) and one < len(value)
        )
        if not holds and not (last and dataclasses.is_dataclass(annotation)):
            continue
        keys.append(str(one))
        owner = annotation if dataclasses.is_dataclass(annotation) else None
        value = value[one] if holds else None
        fields = {field.name: field.type for field in dataclasses.fields(owner)} if owner else {}
        annotation = fields.get(str(one))
    return keys, owner, annotation


def part(annotation: type, node: dict[str, Any], key: str) -> tuple[Any, dict[str, Any]]:
    """Takes the keys of a dataclass out of a node that has others too: (the dataclass, the other keys)."""
    names = {field.name for field in dataclasses.fields(annotation)}
    own = {name: value for name, value in node.items() if name in names}
    return check(annotation, own, key), {name: value for name, value in node.items() if name not in names}


def tree(config: Config) -> dict[str, Any]:
    """The resolved config as plain dictionaries, in its order."""
    return dataclasses.asdict(config)


def constant_keys(data: Any) -> list[str]:
    """`CONSTANT_KEYS`, and where files are checked against known checksums the folder that they lie in.

    Args:
        data: the config's; a stranger's may be anything.
    """
    checked = isinstance(data, Mapping) and bool(data.get("checksums"))
    return [*CONSTANT_KEYS, *["data.root"] * checked]


def identity(config: Config) -> str:
    """Ten hexadecimal digits that name what a run learns: all of its config less `constant_keys`.

    Order counts, since phases run in theirs.
    """
    content, constant = tree(config), constant_keys(config.data)
    for key in (*constant, *LATER_KEYS):
        node = content
        *parents, last = key.split(".")
        for part in parents:
            node = node[part]
        # so that runs of before there were these keys keep their name
        if key in constant or node.get(last) == LATER_KEYS[key]:
            node.pop(last, None)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]
