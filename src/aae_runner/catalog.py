"""The data sets that `data=` may name: where their files lie, and whether they can be read."""

from collections.abc import Sequence
from pathlib import Path

from aae_runner.build import Builder
from aae_runner.config import Component, Facts, part, settle
from aae_runner.errors import ConfigError
from aae_runner.launch import compose


def described(name: str, overrides: Sequence[str], root: Path | None, folders: Sequence[Path]) -> Component:
    """What the config says of a data set.

    Args:
        name: of the data set, a yaml of conf/data.
        overrides: of its keys, as on the command line of `aae-run`.
        root: where its files lie; None: where the config says.
        folders: the user's config folders, as absolute paths.

    Raises:
        ConfigError: there is no such data set or key.
    """
    composed, _ = compose([f"data={name}", *overrides], folders)
    node = settle(composed).data
    return {**node, "root": str(root)} if root is not None and "root" in node else node


def read(name: str, node: Component, build: Builder, *, download: bool) -> str:
    """Reads a data set, checksums included; returns a sentence about what it holds.

    Args:
        name: of the data set.
        node: what the config says of it.
        build: makes its reader.
        download: fetch what is missing or damaged; otherwise the network is not touched.

    Raises:
        ConfigError: a data set is to be fetched that cannot be.
        DataError: files are missing or damaged.
    """
    if "download" in node:
        node = {**node, "download": download}
    elif download:
        where = f"Put its files into {node['root']}." if "root" in node else "It comes with the program."
        raise ConfigError(f"{name}: nothing of it can be fetched. {where}")
    from aae_runner.data import compare

    facts, source = part(Facts, node, "data")
    splits = build(source, "data").read()
    compare(splits, facts)
    shape = "x".join(map(str, splits.train.x.shape[1:]))
    counts = f"{len(splits.train):,} training, {len(splits.valid):,} validation, {len(splits.test):,} test"
    return f"{name}: OK, {counts} images of {shape}" + (f" ({splits.note})." if splits.note else ".")
