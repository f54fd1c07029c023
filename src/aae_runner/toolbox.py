"""`aae`: what comes before and after a run."""

import argparse
import os
import sys
from pathlib import Path

from aae_runner.errors import AAEError, ConfigError

_ENDINGS = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html"}
"""What a report is written as, where only its file is named."""


class _Version(argparse.Action):
    """Names program, torch and device; torch is imported only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        import torch

        import aae_runner

        gpu = torch.cuda.is_available()
        device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
        parser.exit(message=f"aae-runner {aae_runner.__version__}, torch {torch.__version__}, {device}\n")


def _report(arguments: argparse.Namespace) -> None:
    from aae_runner.disk import write
    from aae_runner.page import page
    from aae_runner.report import as_json, comma_separated, markdown, seeds_table
    from aae_runner.summary import read_series

    series, damaged = read_series(arguments.runs)
    for sentence in damaged:
        print(f"aae: {sentence}", file=sys.stderr)
    output: Path | None = arguments.output
    kind = arguments.format or _ENDINGS.get(output.suffix if output else "", "table")
    shown = {
        "table": seeds_table,
        "markdown": markdown,
        "csv": comma_separated,
        "json": as_json,
        "html": page,
    }
    text = shown[kind](series)
    if output is None:
        print(text, end="", flush=True)
    else:
        write(output, text.encode())


def _compare(arguments: argparse.Namespace) -> None:
    names = arguments.names or [_title(run) for run in arguments.runs]
    if len(arguments.runs) < 2:
        raise ConfigError("compare: name two runs or more.")
    if len(names) != len(arguments.runs):
        raise ConfigError(f"--names: {len(names)} names for {len(arguments.runs)} runs. Give one each.")

    from aae_runner.compare import compare
    from aae_runner.disk import written
    from aae_runner.finished import open_run

    options = {
        "data_root": arguments.data_root,
        "config_dirs": arguments.config_dir,
        "trusted": arguments.trust,
    }
    runs = [open_run(folder, **options) for folder in arguments.runs]
    figure = compare(runs, names, sampled=arguments.sampled)
    with written(arguments.output) as file:
        figure.savefig(file, format="png")
    print(arguments.output)


def _of_runs(command: argparse.ArgumentParser) -> None:
    """What every command takes that opens a run again."""
    command.add_argument(
        "--data-root", type=Path, help="where the data lie now (default: where they lay in training)"
    )
    command.add_argument(
        "--config-dir", type=Path, action="append", default=[], help="your folder of yaml and classes"
    )
    command.add_argument(
        "--trust", action="append", default=[], metavar="MODULE", help="a module whose classes a run may name"
    )


def _title(run: Path) -> str:
    """runs/mnist/vae/0123456789/seed0 -> "vae 0123456789 seed0"."""
    return " ".join(run.resolve().parts[-3:])


def main() -> None:
    """The command `aae`."""
    parser = argparse.ArgumentParser(prog="aae", description="What comes before and after `aae-run`.")
    parser.add_argument("--version", action=_Version, nargs=0, help="name program, torch and device")
    commands = parser.add_subparsers(required=True, metavar="command")
    report = commands.add_parser("report", help="final metrics of all runs, mean ± deviation over seeds")
    report.add_argument(
        "runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)"
    )
    report.add_argument(
        "--format", choices=("table", *_ENDINGS.values()), help="(default: by the ending of FILE, or table)"
    )
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file (default: the terminal)")
    report.set_defaults(run=_report)
    compare = commands.add_parser(
        "compare", help="the codes of two or more runs, side by side over their priors"
    )
    compare.add_argument(
        "runs", type=Path, nargs="+", help="folders of finished runs, whose z has 2 dimensions"
    )
    compare.add_argument(
        "--names", nargs="+", default=[], help="their titles (default: the ends of their folders)"
    )
    compare.add_argument(
        "--sampled", action="store_true", help="of a Gaussian q(z|x), samples instead of means"
    )
    compare.add_argument(
        "-o", "--output", type=Path, default=Path("compare.png"), help="the picture (default: compare.png)"
    )
    _of_runs(compare)
    compare.set_defaults(run=_compare)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except AAEError as error:
        print(f"aae: {error}", file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:  # output piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
