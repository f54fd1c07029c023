"""`aae`: what comes before and after a run."""

import argparse
import sys
from pathlib import Path

from aae_runner.errors import AAEError


class _Version(argparse.Action):
    """Names program, torch and device; torch is imported only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        import torch

        import aae_runner

        gpu = torch.cuda.is_available()
        device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
        parser.exit(message=f"aae-runner {aae_runner.__version__}, torch {torch.__version__}, {device}\n")


def _report(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from aae_runner.report import seeds_table

    Console().print(seeds_table(arguments.runs))


def main() -> None:
    """The command `aae`."""
    parser = argparse.ArgumentParser(prog="aae", description="What comes before and after `aae-run`.")
    parser.add_argument("--version", action=_Version, nargs=0, help="name program, torch and device")
    commands = parser.add_subparsers(required=True, metavar="command")
    report = commands.add_parser("report", help="final metrics of all runs, mean ± deviation over seeds")
    report.add_argument(
        "runs", type=Path, nargs="?", default=Path("runs"), help="folder of runs (default: runs)"
    )
    report.set_defaults(run=_report)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except AAEError as error:
        print(f"aae: {error}", file=sys.stderr)
        sys.exit(error.status)
