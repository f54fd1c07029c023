"""The shape of the program, which review alone would not keep."""

import ast
import re
from pathlib import Path

import pytest

import aae_runner
from aae_runner.config import CONF

SOURCE = Path(aae_runner.__file__).parent
ORDER = (
    "__main__", "cli", "sweep", "toolbox", "toolbox.commands", "catalog", "__init__", "launch", "gallery",
    "export", "compare", "finished", "trainer", "resume", "recorder", "page", "page.curves",
    "page.markup", "report", "summary", "series", "differences", "experiment", "parts", "weights",
    "evaluators", "evaluators.clusters", "evaluators.distributions", "evaluators.error_rate",
    "evaluators.pictures", "evaluators.probes", "evaluators.snapshot", "figures", "environment", "parzen",
    "prior_match", "consistency", "merging", "phases", "engine", "graphs", "streams", "precision",
    "losses", "model", "latents", "priors", "networks", "datasets", "datasets.pictures", "datasets.arrays",
    "datasets.idx", "datasets.svhn", "datasets.mat", "datasets.digits", "datasets.files", "checkpoint",
    "disk", "signals", "data", "build", "config", "errors", "words",
)  # fmt: skip
"""A file imports only from files further right. A folder stands for its `__init__.py`."""


def place(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {place(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aae_runner"):
            rest = node.module.removeprefix("aae_runner").removeprefix(".")
            found |= {rest} if rest else {name.name for name in node.names if name.name in FILES}
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] == "aae_runner":
                    found.add(name.name.removeprefix("aae_runner").removeprefix(".") or "__init__")
    return found


def test_every_file_has_its_place_in_the_order() -> None:
    assert set(FILES) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_one_way(name: str) -> None:
    below = ORDER[ORDER.index(name) + 1 :]
    assert imported(FILES[name]) <= set(below)


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_no_file_branches_on_the_name_of_a_variant_or_data_set(path: Path) -> None:
    names = {file.stem for group in ("variant", "data") for file in (CONF / group).glob("*.yaml")}
    constants = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not names & constants


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_begins_by_saying_what_it_is(path: Path) -> None:
    first = next(line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line)
    assert re.match(r"# \S.{5,}", first)
