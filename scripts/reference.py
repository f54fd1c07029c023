"""Writes docs/configuration.md: what every key of the configuration means, from where it is defined.

    python scripts/reference.py            # write the page
    python scripts/reference.py --check    # only compare; status 1 where the page is stale

Defaults and comments come from conf/, allowed values from the annotations that the program checks against,
and what no comment explains from the docstrings. A key that nothing explains is an error.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import re
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aae_runner.config import CONF, Config, Facts, Network, Reference, Schedule, Timing, choices
from aae_runner.evaluators import Evaluator
from aae_runner.words import allowed

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
GROUPS = {
    "data": "What is learned from. `shape`, `classes`, `labels`, `label_seed` and `train_on` belong to every "
    "data set.",
    "prior": "`p(z)`, the prior of the style code. Keys are set as `prior.std=2`.",
    "variant": "What is learned: a yaml that names heads, priors, phases and evaluators.",
    "schedule": "When and how fast. `schedule.phases` is joined to `phases` by name. Another optimizer "
    "shares what keys it can: `schedule.phases.reconstruction.optimizer._target_=torch.optim.AdamW`; for "
    "`RMSprop`, which has no `fused`, also `~schedule.phases.reconstruction.optimizer.fused`.",
    "network": "Trunks, discriminators, and the corruption of the input.",
    "head": "From features to `q(z|x)` or `q(y|x)`: `/head@heads.NAME: CHOICE` in a variant.",
    "phase": "What is lowered on each minibatch: `/phase@phases.NAME: CHOICE` in a variant. Any may have an "
    "`optimizer` of its own; the schedule must not name another.",
    "evaluator": "What is measured and drawn: `/evaluator@evaluators.NAME: CHOICE` in a variant.",
    "recipe": "Numbers of one combination, applied by itself where data, variant and schedule have "
    "these names: `<data>_<variant>_<schedule>`; `~recipe` leaves it out.",
    "experiment": "All of it at once, by the paper's names; see [experiments.md](experiments.md).",
    "search": "What an Optuna sweep varies, and what it lowers; see [sweeps.md](sweeps.md).",
}
OWNERS: dict[str, type] = {"network": Network, "schedule": Schedule}
OPTIMIZER = "an optimizer of `torch.optim`"
HEAD = """# Configuration reference

Written by `scripts/reference.py` from `conf/` and the annotations of the classes: edit those, not this page.

Any key that `aae-run --cfg job` shows is set on the command line by its path: `schedule.epochs=20 prior.std=2
evaluators.samples=null`. Others are added with a `+`: `+schedule.phases.reconstruction.every=2`. A value that
is not allowed ends the program before anything is written.
"""


class Source:
    """A yaml with the comments that stand at its keys."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.root: Any = yaml.compose(text)

    def items(self, node: Any) -> Iterator[tuple[str, Any, str]]:
        """(key, node, comment) of a mapping."""
        for key, value in node.value:
            yield key.value, value, self._comment(key.start_mark.line)

    def _comment(self, line: int) -> str:
        found = re.search(r"\s#\s(.*)$", self.lines[line])
        texts = [found[1]] if found else []
        for further in self.lines[line + 1 :] if found else []:
            if not (more := re.match(r"\s{12,}# (.*)$", further)):
                break
            texts.append(more[1])
        return " ".join(texts)


def explained(owner: type) -> dict[str, str]:
    """The Args of a docstring."""
    _, _, block = (inspect.getdoc(owner) or "").partition("Args:\n")
    block = re.split(r"\n\S|\n\n", block)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", block, re.M)
    return {name: re.sub(r"\s+", " ", text).rstrip(".") for name, text in found}


def hints(owner: type) -> dict[str, Any]:
    """The annotations of the keys that a yaml may give."""
    if dataclasses.is_dataclass(owner):
        return typing.get_type_hints(owner, include_extras=True)
    named = inspect.signature(owner).parameters.values()
    anyhow: Any = owner
    found = typing.get_type_hints(anyhow.__init__, include_extras=True)
    return {one.name: found[one.name] for one in named if one.kind is one.KEYWORD_ONLY}


def located(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def target(node: Any) -> str:
    """The `_target_` of a yaml node, or nothing."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value.value for key, value in pairs if key.value == "_target_"), "")


def shown(node: Any) -> str:
    """A value on one line, as it stands in the yaml; an optimizer as a call."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(map(shown, node.value))}]"
    pairs = [(key.value, shown(value)) for key, value in node.value]
    if name := target(node):
        keys = [f"{key}={value}" for key, value in pairs if key != "_target_"]
        return f"{name.rpartition('.')[2]}({', '.join(keys)})"
    return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"


@dataclass
class Row:
    """A key of one owner: its default in each place, what is allowed, what it means."""

    allowed: str
    docstring: str
    comments: list[str] = field(default_factory=list)
    defaults: dict[str, str] = field(default_factory=dict)

    @property
    def meaning(self) -> str:
        """The comment, where all places agree on it, else the docstring."""
        agreed = len(set(self.comments)) == 1 or not self.docstring
        return self.comments[0] if self.comments and agreed else self.docstring


@dataclass
class Group:
    """The keys of a group, by their owner (a class, or a part of the configuration)."""

    tables: dict[type, dict[str, Row]] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    """Values that a choice gives to keys of others."""

    def read(self, source: Source, node: Any, place: str, path: str, owner: type | None) -> None:
        """Takes in a node, which stands at `path` within what `owner` describes."""
        for key, value, comment in source.items(node):
            if key in ("_target_", "defaults", "hydra") or (key == "reference" and owner is not Config):
                continue
            full = f"{path}.{key}".lstrip(".")
            if target(value).startswith("aae_runner."):
                self.component(source, value, f"{place}.{full}")
            elif _is_branch(value):
                inner: Any = hints(owner).get(key) if owner else None
                within: Any = inner if dataclasses.is_dataclass(inner) else owner
                self.read(source, value, place, full, within)
            elif owner is None:
                self.sets.setdefault(place, []).append(f"{full}={shown(value)}")
            else:
                words = OPTIMIZER if target(value) else ""
                stated = owner is not Network and key in hints(Facts)
                self._add(Facts if stated else owner, full, place, shown(value), words).extend(
                    [comment] * bool(comment)
                )

    def component(self, source: Source, node: Any, place: str) -> None:
        """Takes in a component: the keys that its yaml states, then those that it leaves to the class."""
        owner = located(target(node))
        self.read(source, node, place, "", owner)
        for key, one in inspect.signature(owner).parameters.items():
            stated = self.tables.get(owner, {}).get(key)
            if (
                key in hints(owner)
                and not (stated and place in stated.defaults)
                and one.default is not one.empty
            ):
                self._add(owner, key, place, json.dumps(one.default).strip('"'), "")

    def _add(self, owner: type, key: str, place: str, default: str, words: str) -> list[str]:
        """Notes a default; returns the comments of the key."""
        words = words or allowed(hints(owner)[key.rpartition(".")[2]])
        if default == "null" and "`null`" not in words:
            words += " or `null`"
        row = self.tables.setdefault(owner, {}).setdefault(key, Row(words, explained(owner).get(key, "")))
        row.defaults[place] = default
        return row.comments


def _is_branch(node: Any) -> bool:
    return (
        isinstance(node, yaml.MappingNode)
        and not target(node)
        and any(key.value.isidentifier() for key, _ in node.value)
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def table_of(rows: dict[str, Row], owner: str) -> str:
    """A table of keys.

    Raises:
        SystemExit: a key is not explained, or its null is not.
    """
    for key, row in rows.items():
        if not row.meaning or ("`null`" in row.allowed and "null" not in row.meaning):
            lacking = "what null means" if row.meaning else "what it means"
            sys.exit(f"{owner}.{key}: nothing says {lacking}. Add it to its yaml or docstring.")
    lines = [[f"`{key}`", _defaults(row), row.allowed, row.meaning] for key, row in rows.items()]
    return table(["key", "default", "allowed", "meaning"], lines)


def _defaults(row: Row) -> str:
    """The most common default, then where it is another."""
    (usual, _), *others = Counter(row.defaults.values()).most_common()
    texts = [f"`{usual}`" if usual else "needed"]
    for value, _ in others:
        places = ", ".join(f"`{place}`" for place, one in row.defaults.items() if one == value)
        texts.append(f"`{value}` in {places}")
    return "; ".join(texts)


def of_dataclass(owner: type, path: str) -> str:
    """A table of keys that no yaml of ours states."""
    rows = {}
    for one in dataclasses.fields(owner):
        needed = one.default is dataclasses.MISSING
        default = "" if needed else json.dumps(one.default)
        words, docstring = allowed(hints(owner)[one.name]), explained(owner).get(one.name, "")
        rows[f"{path}.{one.name}"] = Row(words, docstring, defaults={"": default})
    return table_of(rows, owner.__name__)


def of_group(name: str) -> list[str]:
    """The choices of a group, and a table for each owner of their keys."""
    group, rows = Group(), []
    for choice, what in choices(name).items():
        source = Source(CONF / name / f"{choice}.yaml")
        listed = [value for key, value, _ in source.items(source.root) if key == "defaults"]
        entries = listed[0].value if listed else []
        bases = [f"`{entry.value}`" for entry in entries if isinstance(entry, yaml.ScalarNode)]
        pairs = [pair for entry in entries if isinstance(entry, yaml.MappingNode) for pair in entry.value]
        for key, value in pairs:
            if key.value.startswith("override /") and "@" not in key.value:
                bases.append(f"`{key.value.removeprefix('override /')}={value.value}`")
        if target(source.root):
            group.component(source, source.root, choice)
        else:
            derived = any(isinstance(entry, yaml.ScalarNode) for entry in entries)
            group.read(source, source.root, choice, "", None if derived else OWNERS.get(name))
        rows.append(
            [f"`{choice}`", what, ", ".join([*bases, *(f"`{one}`" for one in group.sets.get(choice, []))])]
        )
    width = 3 if any(row[2] for row in rows) else 2
    texts = [
        f"## {name}",
        GROUPS[name],
        table(["choice", "what", "sets"][:width], [row[:width] for row in rows]),
    ]
    for owner, keys in group.tables.items():
        places = dict.fromkeys(f"`{place}`" for row in keys.values() for place in row.defaults)
        texts += [f"**{owner.__name__}** ({', '.join(places)})", table_of(keys, owner.__name__)]
        if issubclass(owner, Evaluator):
            finds = " ".join((inspect.getdoc(owner.__call__) or "").split())
            texts.append(f"Finds {finds[0].lower()}{finds[1:]}")
    return texts


def page() -> str:
    group, source = Group(), Source(CONF / "config.yaml")
    group.read(source, source.root, "", "", Config)
    rows = {key: row for keys in group.tables.values() for key, row in keys.items()}
    texts = ["## The run", table_of(rows, "Config"), "`reference`, where it is not null:"]
    texts.append(of_dataclass(Reference, "reference"))
    for name in GROUPS:
        texts += of_group(name)
        if name == "schedule":
            texts += ["A phase in `schedule.phases` may also have:", of_dataclass(Timing, "phases.<phase>")]
    return HEAD + "\n" + "\n\n".join(texts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare")
    given = parser.parse_args()
    text = page()
    if not given.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/configuration.md is stale. Write it anew: python scripts/reference.py")


if __name__ == "__main__":
    main()
