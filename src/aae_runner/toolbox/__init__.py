"""`aae`: what comes before and after a run. Here is what one may ask for."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aae_runner.toolbox.commands as does
from aae_runner.config import nearest
from aae_runner.errors import AAEError
from aae_runner.words import counted


class _Parser(argparse.ArgumentParser):
    """Says of what there is not which of what there is may be meant."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"there is no {value}.{nearest(value, action.choices)}")

    def refuse(self, rest: list[str]) -> None:
        """Ends the program over arguments that are left."""
        options = [one for one in rest if one.startswith("-")]
        if not options:
            self.error(f"{rest[0]}: one argument too many")
        name, known = options[0].partition("=")[0], self._option_string_actions
        self.error(f"there is no {name}.{nearest(name, known)}")


class _Version(argparse.Action):
    """Names program, torch and device; torch is imported only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        import torch

        import aae_runner

        gpu = torch.cuda.is_available()
        threads = counted(torch.get_num_threads(), "thread")
        device = torch.cuda.get_device_name() if gpu else f"CPU, {threads}"
        print(f"aae-runner {aae_runner.__version__}, torch {torch.__version__}, {device}")
        parser.exit()


def _from(low: int, high: int) -> Callable[[str], int]:
    """Reads a number in a range."""

    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text}: allowed are {low} to {high:,}")
        return int(text)

    return number


def _ending(*allowed: str) -> Callable[[str], Path]:
    """Reads the name of a file that ends in one of these ways."""

    def file(text: str) -> Path:
        if Path(text).suffix not in allowed:
            raise argparse.ArgumentTypeError(f"{text}: a name that ends in {' or '.join(allowed)} is needed")
        return Path(text)

    return file


def _parser() -> _Parser:
    parser = _Parser(prog="aae", description="What comes before and after `aae-run`.")
    parser.add_argument("--version", action=_Version, nargs=0, help="name program, torch and device")
    parser.set_defaults(data_root=None, overrides=None)  # of commands that take none
    commands = parser.add_subparsers(required=True, metavar="command")

    report = _add(commands, "report", does.report, "final metrics of all runs, mean ± deviation over seeds")
    report.add_argument(
        "runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)"
    )
    report.add_argument("--paper", action="store_true", help="only what the paper has a number for")
    report.add_argument(
        "--against", metavar="IDENTITY",
        help="how the others differ from this one, seed by seed, ± the standard error of that",
    )  # fmt: skip
    report.add_argument("--split", choices=["test", "valid"], default="test", help="(default: test)")
    report.add_argument(
        "--format",
        choices=tuple(does.ENDINGS.values()),
        help="(default: by the ending of FILE, or table)",
    )
    report.add_argument(
        "-o", "--output", type=_ending(*does.ENDINGS), metavar="FILE",
        help=f"the file, {', '.join(does.ENDINGS)} (default: the terminal)",
    )  # fmt: skip

    compare = _add(commands, "compare", does.compare, "the codes of runs, side by side over their priors")
    compare.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two or more, with z of 2 dimensions"
    )
    compare.add_argument("--names", nargs="+", default=[], help="titles (default: the ends of their folders)")
    compare.add_argument("--sampled", action="store_true", help="of a Gaussian q(z|x), not means but samples")
    _output(compare, "compare.png", "the picture", *does.PICTURES)

    agree = _add(commands, "agree", does.agree, "which of several clusterings to trust, without labels")
    agree.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="two or more, with clusters")

    evaluate = _add(commands, "evaluate", does.evaluate, "a run's metrics, computed again on a split")
    _run(evaluate)
    evaluate.add_argument("--split", choices=["test", "valid"], default="test", help="(default: test)")
    evaluate.add_argument("--metric", action="append", metavar="NAME", help="this one alone; may be repeated")
    evaluate.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE",
        help="how to look now, such as evaluators.log_likelihood.samples=10000000",
    )  # fmt: skip

    sample = _add(commands, "sample", does.sample, "decoded samples of a run's priors")
    _run(sample)
    sample.add_argument("-n", type=_from(1, 10_000), default=64, help="how many (default: 64)")
    sample.add_argument("--class", type=int, dest="label", metavar="K", help="of this class or cluster alone")
    sample.add_argument("--seed", type=_from(0, 2**63 - 1), default=0, metavar="N", help="(default: 0)")
    _output(sample, "samples.png", "the picture", *does.PICTURES)

    traverse = _add(commands, "traverse", does.traverse, "a walk along each dimension of a run's style")
    _run(traverse)
    where = traverse.add_mutually_exclusive_group()
    where.add_argument(
        "--class", type=int, dest="label", metavar="K", help="in this class (default: the first)"
    )
    where.add_argument(
        "--between", type=int, nargs=2, metavar=("I", "J"), help="from test image I to J instead"
    )
    traverse.add_argument("--steps", type=_from(2, 100), default=9, metavar="N", help="in a row (default: 9)")
    _output(traverse, "walk.png", "the picture", *does.PICTURES)

    encode = _add(commands, "encode", does.encode, "the codes of a folder of pictures")
    _run(encode)
    encode.add_argument("folder", type=Path, metavar="FOLDER", help="of pictures, at any depth")
    _output(encode, "codes.npz", "NumPy arrays: one a head, and paths", ".npz")

    export = _add(commands, "export", does.export, "a run's networks, for use without this package")
    _run(export)
    usual, *_ = does.FORMATS
    export.add_argument("--format", choices=list(does.FORMATS), default=usual, help=f"(default: {usual})")
    export.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help="the weights; of programs, FILE.encoder.pt2 and FILE.decoder.pt2",
    )  # fmt: skip

    for one in (compare, agree, evaluate, traverse):
        one.add_argument("--data-root", type=Path, metavar="FOLDER", help="where its data lie now")
    for one in (compare, agree, evaluate, sample, traverse, encode, export):
        _yours(one)
    _data(commands)
    return parser


def _data(commands: "argparse._SubParsersAction[_Parser]") -> None:
    data = commands.add_parser("data", help="list, fetch or verify data sets", description="Data sets.")
    actions = data.add_subparsers(required=True, metavar="action")
    listed = _add(actions, "list", does.data_list, "all data sets, and where their files lie")
    fetch = _add(actions, "fetch", does.data_read, "download what is missing or damaged, and check")
    verify = _add(actions, "verify", does.data_read, "read and check, without the network")
    fetch.set_defaults(download=True)
    verify.set_defaults(download=False)
    for one in (fetch, verify):
        one.add_argument("name", metavar="NAME", help="of the data set")
        one.add_argument(
            "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as data.shape=[1,48,48]"
        )
        _yours(one)
    _config_dir(listed)
    for one in (listed, fetch, verify):
        one.add_argument("--root", type=Path, metavar="FOLDER", help="where the files lie")


def _add(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run, parser=command)
    return command


def _config_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config-dir", type=Path, action="append", default=[], metavar="FOLDER", help="your yaml and classes"
    )


def _yours(command: argparse.ArgumentParser) -> None:
    _config_dir(command)
    command.add_argument(
        "--trust", action="append", default=[], metavar="MODULE", help="whose classes may be named"
    )


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder_of_run", type=Path, metavar="RUN", help="folder of a finished run")


def _output(command: argparse.ArgumentParser, default: str, text: str, *endings: str) -> None:
    command.add_argument(
        "-o", "--output", type=_ending(*endings), default=default, metavar="FILE",
        help=f"{text}, {' or '.join(endings)} (default: {default})",
    )  # fmt: skip


def main() -> None:
    """The command `aae`."""
    logging.basicConfig(format="aae: %(message)s")  # to stderr; stdout is for what was asked
    logging.getLogger("aae_runner").setLevel(logging.INFO)
    arguments, rest = _parser().parse_known_args()
    if arguments.overrides is not None:  # argparse leaves out those that follow an option
        arguments.overrides = [*arguments.overrides, *(text for text in rest if not text.startswith("-"))]
        rest = [text for text in rest if text.startswith("-")]
    if rest:
        arguments.parser.refuse(rest)
    try:
        arguments.run(arguments)
    except AAEError as error:
        print(f"aae: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("aae: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # output piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
