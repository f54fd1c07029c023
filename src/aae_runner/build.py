"""From a component of the config to an object: the only place where a dotted name becomes a class.

The rule that every component follows: positional parameters come from the program (a width, the prior
of a head, the parameters to optimize), keyword parameters come from the yaml and are checked against
their annotations before the constructor is called.
"""

import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aae_runner.config import Component, check, nearest
from aae_runner.errors import ConfigError

OURS = (
    "aae_runner.consistency", "aae_runner.data", "aae_runner.datasets", "aae_runner.evaluators",
    "aae_runner.latents", "aae_runner.networks", "aae_runner.phases", "aae_runner.priors",
    "aae_runner.merging", "torch.nn", "torch.optim",
)  # fmt: skip
"""Modules whose classes a config may name without being told to trust them; no class writes to a disk."""


def refuse_absent(folders: Sequence[Path]) -> None:
    """Of the user's config folders.

    Raises:
        ConfigError: one does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: no such folder. Name one that holds groups, such as prior/mine.yaml."
            )


@dataclass(frozen=True)
class Builder:
    """Builds components from trusted places only.

    Args:
        trusted: modules that the user trusts beyond ours.
        folders: the user's config folders, as absolute paths; modules that lie in them are trusted too, and
            can be imported from now on.
    """

    trusted: Sequence[str] = ()
    folders: Sequence[Path] = field(default=())

    def __post_init__(self) -> None:
        """Makes the folders' modules importable.

        Raises:
            ConfigError: there is no such folder or module.
        """
        refuse_absent(self.folders)
        sys.path += [str(folder) for folder in self.folders if str(folder) not in sys.path]
        for name in self.trusted:
            top = name.partition(".")[0]
            if not top or (top not in sys.modules and importlib.util.find_spec(top) is None):
                raise ConfigError(f"trusted: there is no module {name}. Name one that Python finds.")

    def __call__(self, node: Component, key: str, /, *context: Any) -> Any:
        """The object that `node` describes.

        Args:
            node: a `_target_` and keyword arguments.
            key: where the node stands in the config, for messages.
            context: positional arguments, from the program.

        Raises:
            ConfigError: the class is unknown or not trusted, or an argument is unknown, missing, of a
                wrong type, out of range, or refused by the constructor.
        """
        target = self._locate(node["_target_"], f"{key}._target_")
        arguments = {name: value for name, value in node.items() if name != "_target_"}
        arguments = {name: self._nested(value, f"{key}.{name}") for name, value in arguments.items()}
        arguments = _checked(target, arguments, key, len(context))
        try:
            return target(*context, **arguments)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{key}: {target.__name__} refuses its arguments: {error}") from error

    def _nested(self, value: Any, key: str) -> Any:
        return self(value, key) if isinstance(value, dict) and "_target_" in value else value

    def _locate(self, name: str, key: str) -> Any:
        module_name, _, attribute = name.rpartition(".")
        if not self._trusts(module_name):  # before importing: to import is to execute
            raise ConfigError(
                f"{key}={name}: not from a trusted place. Allowed: {', '.join(OURS)}, modules beside "
                "your own yaml (--config-dir), and those listed in trusted=[...] (of `aae`: --trust)."
            )
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{key}={name}: there is no module {error.name}.") from error
        except SyntaxError as error:
            where = f"{error.filename}, line {error.lineno}"
            raise ConfigError(f"{key}={name}: {where}: this is no Python ({error.msg}).") from error
        target = getattr(module, attribute, None)
        # what a module merely imports (`aae_runner.cli.os`) is not its own
        if not inspect.isclass(target) or not self._trusts(target.__module__):
            # a folder of modules shows the classes of its files
            own = [
                name
                for name, value in vars(module).items()
                if f"{getattr(value, '__module__', '')}.".startswith(f"{module_name}.")
            ]
            public = [one for one in own if inspect.isclass(vars(module)[one]) and not one.startswith("_")]
            raise ConfigError(f"{key}={name}: {module_name} has no such class.{nearest(attribute, public)}")
        if missing := ", ".join(sorted(getattr(target, "__abstractmethods__", ()))):
            raise ConfigError(
                f"{key}={name}: its method {missing} is missing. Write it, or name another class."
            )
        return target

    def _trusts(self, module_name: str) -> bool:
        listed = any(
            module_name == one or module_name.startswith(f"{one}.") for one in (*OURS, *self.trusted)
        )
        return listed or self._lies_beside_yaml(module_name)

    def _lies_beside_yaml(self, module_name: str) -> bool:
        top = module_name.partition(".")[0]
        return any(
            (folder / f"{top}.py").is_file() or (folder / top).is_dir() for folder in self.folders
        ) and (
            (spec := importlib.util.find_spec(top)) is not None
            and spec.origin is not None
            and any(Path(spec.origin).is_relative_to(folder) for folder in self.folders)
        )


def _checked(target: Any, arguments: dict[str, Any], key: str, context: int) -> dict[str, Any]:
    parameters = list(inspect.signature(target).parameters.values())[context:]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return arguments
    named = {one.name: one for one in parameters if one.kind is not inspect.Parameter.POSITIONAL_ONLY}
    hints = typing.get_type_hints(target.__init__, include_extras=True)
    for name in arguments:
        if name not in named:
            raise ConfigError(f"{key}.{name} is not a key of {target.__name__}.{nearest(name, named)}")
    for name, parameter in named.items():
        if name not in arguments and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{key}.{name} is not set, and {target.__name__} has no default for it.")
    return {name: check(hints.get(name, Any), value, f"{key}.{name}") for name, value in arguments.items()}
