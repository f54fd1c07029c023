"""`aae`: what comes before and after a run."""

import argparse


class _Version(argparse.Action):
    """Names program, torch and device; torch is imported only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        import torch

        import aae_runner

        device = (
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else f"cpu, {torch.get_num_threads()} threads"
        )
        parser.exit(message=f"aae-runner {aae_runner.__version__}, torch {torch.__version__}, {device}\n")


def main() -> None:
    """The command `aae`."""
    parser = argparse.ArgumentParser(prog="aae", description="The toolbox of aae-run.")
    parser.add_argument("--version", action=_Version, nargs=0, help="name program, torch and device")
    parser.parse_args()
    parser.print_help()
