"""From overrides to a run: composed by Hydra, checked, trained in its folder."""

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, OverrideType
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from aae_runner.build import Builder, refuse_absent
from aae_runner.config import CONF, choices, identity, nearest, settle
from aae_runner.errors import ConfigError

if TYPE_CHECKING:  # torch is imported late: help and mistakes are instant
    from rich.console import Console

    from aae_runner.finished import Finished

PLUGINS = {
    "hydra/launcher=joblib": "sweep",
    "hydra/sweeper=optuna": "sweep",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
}
"""Plugins of Hydra that are tested with the program, and the extra that installs each."""

log = logging.getLogger("aae_runner")

OPTIONAL = ("experiment", "recipe", "search")
"""Groups that Hydra lets a command do without."""


def train(overrides: Sequence[str] = (), *, config_dirs: Sequence[str | Path] = ()) -> "Finished":
    """What `aae-run` does with the same overrides, from a script or a notebook.

    The run lies in the same folder as the command's, continues there, or is only opened where it is finished.

    Args:
        overrides: as on the command line: `["variant=basic", "seed=1"]`.
        config_dirs: your folders of yaml and classes.

    Raises:
        AAEError: see its subclasses.
        Interrupted: a signal asked to stop; nothing is lost.
    """
    folders = [Path(folder).absolute() for folder in config_dirs]
    config, settings = compose(overrides, folders)
    folder, _ = launch(config, settings)

    from aae_runner.finished import open_run

    # what the caller trusts: the file of a finished run may be a stranger's
    return open_run(folder, config_dirs=folders, trusted=list(config.trusted), device=config.device)


def compose(overrides: Sequence[str], folders: Sequence[Path] = ()) -> tuple[DictConfig, HydraConf]:
    """What overrides mean: the config, and Hydra's own settings.

    Args:
        overrides: as on the command line.
        folders: the user's config folders, as absolute paths.

    Raises:
        ConfigError: Hydra cannot compose them.
    """
    refuse_absent(folders)
    places = json.dumps([f"file://{folder}" for folder in folders], ensure_ascii=False)  # quoted for Hydra
    try:
        refuse(overrides, folders)
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose(
                "config", [*overrides, f"hydra.searchpath={places}"], return_hydra_config=True
            )
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(explain(error)) from error
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), config.hydra


def launch(composed: DictConfig, settings: HydraConf) -> tuple[Path, dict[str, Any]]:
    """Trains in the folder that a composed config names: (the folder, the content of its results.json).

    Args:
        composed: the config.
        settings: Hydra's own: which choices were made, and from which folders.

    Raises:
        AAEError: see its subclasses.
        Interrupted: a signal asked to stop; nothing is lost.
    """
    config = settle(composed)
    folders = [
        Path(source.path)
        for source in settings.runtime.config_sources
        if source.schema == "file" and source.provider not in ("main", "hydra", "schema")
    ]

    from aae_runner.environment import device_of_job
    from aae_runner.recorder import console
    from aae_runner.trainer import train

    _log_to(console)
    for text in settings.overrides.task:
        named = re.match(r"\+*schedule\.phases\.(\w+)", text)
        if named and named[1] not in config.phases:
            phases = ", ".join(config.phases)
            log.warning("%s: changes nothing; this run has no such phase, but %s.", text, phases)
    chosen = settings.runtime.choices
    folder = Path(config.runs).expanduser() / chosen["data"] / chosen["variant"] / identity(config)
    texts = {
        ".hydra/config.yaml": OmegaConf.to_yaml(composed, resolve=True),
        ".hydra/hydra.yaml": OmegaConf.to_yaml(settings),
        ".hydra/overrides.yaml": OmegaConf.to_yaml(settings.overrides.task),
    }
    run = folder / f"seed{config.seed}"
    if settings.mode == RunMode.MULTIRUN and config.device == "auto":
        config = replace(config, device=device_of_job(int(settings.job.num)))
    return run, train(config, run, Builder(config.trusted, folders), texts)


def _log_to(console: "Console") -> None:
    class Terminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # a closed pipe (`aae-run | head`) silences the console, and ends no training
            with contextlib.suppress(SystemExit):
                console.print(record.getMessage(), soft_wrap=True, markup=False, highlight=False)

    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [Terminal()]
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


_PLAIN, _NO_TEXT = re.compile(r"[\w.,+-]+"), re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|inf|nan", re.I)
"""Names of choices, one or several; and what Hydra reads as a number or a truth value."""


def refuse(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """What Hydra would take with a traceback, or with silence.

    That is `group=null`, `group=5`, a recipe that is not there, and a glob that matches nothing.

    Raises:
        ConfigError: there is one.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        group = key.removeprefix("+").partition("@")[0]
        names = choices(group, *folders) if group.isidentifier() else {}
        if "null" in value.split(",") and names:
            remedy = f"Write ~{group}" if group in OPTIONAL else f"Choose one: {', '.join(names)}"
            raise ConfigError(f"{text}: null does not switch a group off. {remedy}.")
        for name in value.split(",") if names and _PLAIN.fullmatch(value) else ():
            if name not in names and (group == "recipe" or _NO_TEXT.fullmatch(name)):
                raise ConfigError(f"{group}={name}: there is no such {group}.{nearest(name, names)}")
        if value.startswith("glob("):
            pattern: Any = OverridesParser.create().parse_override(text).value()
            if isinstance(pattern, Glob) and not pattern.filter(list(names)):
                raise ConfigError(f"{text}: matches nothing. Allowed: {', '.join(names) or 'nothing yet'}.")


def left_to_jobs(arguments: Sequence[str]) -> list[str]:
    """The overrides of a sweep, so that a key may belong to some of its choices only.

    Hydra composes a sweep once without what is swept, and would refuse `data.root` beside `data=mnist,svhn`,
    or a glob of experiments: the default data have no such key. With `++` it leaves that to the jobs, whose
    configs are checked whole in any case.
    """
    parser = OverridesParser.create()
    swept, keys = set[str](), dict[int, str]()
    for place, text in enumerate(arguments):
        with contextlib.suppress(HydraException):  # Hydra will say it
            override = parser.parse_override(text)
            if override.is_sweep_override():
                swept.add(override.key_or_group.partition("@")[0])
            if override.type is OverrideType.CHANGE and "." in override.key_or_group:
                keys[place] = override.key_or_group.partition(".")[0]
    return [
        f"++{text}" if place in keys and swept & {keys[place], "experiment", "variant"} else text
        for place, text in enumerate(arguments)
    ]


_REMEDIES = {
    "Ambiguous value": "Several values are a sweep: add -m. A list is written [1,2].",
    "Multiple values": "It is chosen already: leave out the +.",
    "more than once in the final defaults list": "It is chosen already: leave out the +.",
    "Could not override": "To add it, put a + before it.",
    "Could not append": "To change it, leave out the +.",
}
"""What to do about what Hydra says, by a part of it."""


def explain(error: HydraException | OmegaConfBaseException | YAMLError) -> str:
    """What Hydra found wrong, in a sentence."""
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark) is not None:
        return f"{mark.name}, line {mark.line + 1}: this is no yaml ({error.problem})."
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, error.options or [])
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        parent, key = cause.parent_node, str(cause.key)
        if isinstance(parent, DictConfig):
            allowed = [str(name) for name in parent if name != "hydra"]
            if key not in allowed:
                what = f"{cause.full_key} is not a key of the configuration.{nearest(key, allowed)}"
                open_to_more = str(cause.full_key).startswith("schedule.phases.")
                return f"{what} To add it: +{cause.full_key}=VALUE." if open_to_more else what
    first = str(error).strip().splitlines()[0].rstrip(".")
    for part, remedy in _REMEDIES.items():
        if part in first:
            return f"{first}. {remedy}"
    return f"{first}. `aae-run --help` lists what there is."


def _unreadable(override: str) -> str:
    key, equals, value = override.partition("=")
    if key.startswith("/"):
        remedy = f" Write it without the /: {override[1:]}."
    else:
        remedy = (
            f" A value with ~, =, brackets or the like is quoted twice: \"{key}='{value}'\"."
            if equals
            else ""
        )
    return f"{override}: cannot be read as KEY=VALUE.{remedy}"


def _missing(file: str, options: Sequence[str]) -> str:
    group, _, name = file.rpartition("/")
    if f"{group}={name}" in PLUGINS:
        return f"{group}={name}: not installed. pip install 'aae-runner[{PLUGINS[f'{group}={name}']}]'"
    if not group:
        return f"--config-name {name}: there is no such config. Leave it out."
    return f"{group}={name}: there is no such {group}.{nearest(name, options or choices(group))}"
