"""What each command of `aae` does with its arguments."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aae_runner.build import Builder
from aae_runner.config import choices, nearest
from aae_runner.disk import write, written
from aae_runner.errors import ConfigError

if TYPE_CHECKING:  # torch is imported late: help and mistakes are instant
    from matplotlib.figure import Figure

    from aae_runner.finished import Finished

ENDINGS = {".txt": "table", ".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html"}
"""What a report is written as, by the ending of its file."""
PICTURES = (".png", ".pdf", ".svg")
"""What a picture may be."""
FORMATS = {"torch-export": ".pt2", "safetensors": ".safetensors"}
"""What a run may be exported as, with the ending of its files."""


def report(arguments: Namespace) -> None:
    """Final metrics of all runs."""
    from aae_runner.page import page
    from aae_runner.report import as_json, comma_separated, markdown, seeds_table, waiting
    from aae_runner.series import against, beside_the_paper, read_series, unfinished

    output: Path | None = arguments.output
    by_ending = ENDINGS[output.suffix] if output else None
    kind = arguments.format or by_ending or "table"
    if by_ending not in (None, kind):
        raise ConfigError(
            f"-o {output}: by its ending {by_ending}, but --format says {kind}. Leave --format out, or give "
            "the file another ending."
        )
    if arguments.paper and (arguments.against is not None or arguments.split != "test"):
        raise ConfigError(
            "--paper: its numbers are of the test split, and from nothing else. Leave the others out."
        )
    series, left_out = read_series(arguments.runs, arguments.split)
    for sentence in left_out:
        print(f"aae: {sentence}", file=sys.stderr)
    if arguments.paper:
        series = beside_the_paper(series)
    if arguments.against is not None:
        series = against(series, arguments.against)
    shown = {
        "table": seeds_table,
        "markdown": markdown,
        "csv": comma_separated,
        "json": as_json,
        "html": page,
    }
    text = shown[kind](series)
    if output is None:
        if kind == "table" and (line := waiting(unfinished(arguments.runs))):
            text += f"\n{line}"
        print(text, end="", flush=True)
    else:
        write(output, text.encode())


def compare(arguments: Namespace) -> None:
    """Codes side by side."""
    names = arguments.names or [_title(run) for run in arguments.runs]
    if len(arguments.runs) < 2:
        raise ConfigError("compare: name two runs or more.")
    if len(names) != len(arguments.runs):
        raise ConfigError(f"--names: {len(names)} names for {len(arguments.runs)} runs. Give one each.")

    from aae_runner.compare import compare as side_by_side

    runs = [_opened(arguments, folder) for folder in arguments.runs]
    _save(side_by_side(runs, names, sampled=arguments.sampled), arguments.output)


def agree(arguments: Namespace) -> None:
    """Runs by how far their clusters are those of the others."""
    if len(arguments.runs) < 2:
        raise ConfigError("agree: name two runs or more.")

    from rich.table import Table

    from aae_runner.compare import agreement
    from aae_runner.report import show

    means = agreement([_opened(arguments, folder) for folder in arguments.runs])
    table = Table("run", "agreement with the others", box=None, padding=(0, 2))
    for mean, folder in sorted(zip(means, arguments.runs, strict=True), reverse=True):
        table.add_row(_title(folder), f"{mean:.3f}")
    show(table)


def evaluate(arguments: Namespace) -> None:
    """A run's metrics again."""
    from rich.table import Table

    from aae_runner.report import readable, show

    findings = _opened(arguments).evaluate(arguments.split)
    metrics = {name: value for name, value in findings.items() if isinstance(value, float)}
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name in arguments.metric or metrics:
        if name not in metrics:
            raise ConfigError(f"--metric {name}: not found by this run's evaluators.{nearest(name, metrics)}")
        table.add_row(f"{arguments.split}/{name}", readable(name, metrics[name]))
    show(table)


def sample(arguments: Namespace) -> None:
    """Decoded samples."""
    import torch

    from aae_runner.gallery import samples

    run = _opened(arguments)
    torch.manual_seed(arguments.seed)
    _save(samples(run, arguments.n, arguments.label), arguments.output)


def traverse(arguments: Namespace) -> None:
    """A walk, or the line between two images."""
    from aae_runner.gallery import between, walk

    run = _opened(arguments)
    ends = arguments.between
    figure = between(run, ends, arguments.steps) if ends else walk(run, arguments.label, arguments.steps)
    _save(figure, arguments.output)


def encode(arguments: Namespace) -> None:
    """The codes of pictures."""
    import numpy as np
    import torch

    from aae_runner.datasets.pictures import find_pictures, read_pictures

    run, folder = _opened(arguments), arguments.folder
    if run.shape[0] not in (1, 3):
        raise ConfigError(
            f"{run.folder}: its images have {run.shape[0]} channels; those of pictures are 1 or 3."
        )
    paths = find_pictures(folder)
    x, others = read_pictures(paths, run.shape)
    if others:
        shape = "x".join(map(str, run.shape))
        print(
            f"aae: {others:,} of {len(paths):,} pictures had another size or color than the run's, and "
            f"were brought to {shape}.",
            file=sys.stderr,
        )
    codes = run.encode(torch.from_numpy(x))
    arrays: dict[str, Any] = {name: code.numpy() for name, code in codes.items()}
    arrays["paths"] = np.array([path.relative_to(folder).as_posix() for path in paths])
    with written(arguments.output) as file:
        np.savez(file, **arrays)
    print(arguments.output)


def export(arguments: Namespace) -> None:
    """Weights or programs."""
    output, ending = arguments.output, FORMATS[arguments.format]
    if not output.name or output.suffix not in ("", ending):
        raise ConfigError(
            f"-o {output}: --format {arguments.format} writes {ending} files. Allowed: a name that ends in "
            f"{ending}, or one without an ending, to which it is added."
        )
    output = output.with_suffix(ending)
    run = _opened(arguments, device="cpu")
    if arguments.format == "safetensors":
        write(output, (run.folder / "model.safetensors").read_bytes())
        print(output)
        return

    from aae_runner.export import export as write_programs

    print(*write_programs(run, output), sep="\n")


def data_list(arguments: Namespace) -> None:
    """Data sets and their folders."""
    from aae_runner.catalog import described

    for name, text in choices("data", *arguments.config_dir).items():
        print(f"{name:<14} {text}")
        if root := described(name, [], arguments.root, _folders(arguments)).get("root"):
            print(f"{'':<14} {Path(root).expanduser()}")


def data_read(arguments: Namespace) -> None:
    """Fetches or verifies a data set."""
    from aae_runner.catalog import described, read

    folders = _folders(arguments)
    node = described(arguments.name, arguments.overrides, arguments.root, folders)
    print(read(arguments.name, node, Builder(arguments.trust, folders), download=arguments.download))


def _folders(arguments: Namespace) -> list[Path]:
    return [folder.absolute() for folder in arguments.config_dir]


def _opened(arguments: Namespace, folder: Path | None = None, device: str = "auto") -> "Finished":
    from aae_runner.finished import open_run

    return open_run(
        folder or arguments.folder_of_run,
        data_root=arguments.data_root,
        config_dirs=arguments.config_dir,
        trusted=arguments.trust,
        device=device,
        overrides=arguments.overrides or (),
    )


def _save(figure: "Figure", output: Path) -> None:
    with written(output) as file:
        figure.savefig(file, format=output.suffix[1:])
    print(output)


def _title(run: Path) -> str:
    """runs/mnist/vae/0123456789/seed0 -> "vae 0123456789 seed0"."""
    return " ".join(run.resolve().parts[-3:])
