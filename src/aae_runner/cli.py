"""`aae-run`: a Hydra application, and the outermost edge where errors become sentences and exit statuses."""

import argparse
import contextlib
import hashlib
import json
import math
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aae_runner.config import CONF, choices, constant_keys, nearest
from aae_runner.disk import unwritable, write
from aae_runner.errors import AAEError, ConfigError, DiskError, Interrupted, NumericalError
from aae_runner.launch import explain, launch, left_to_jobs, refuse
from aae_runner.sweep import Outcome, print_outcomes, read_outcomes

GROUPS = {
    "variant": "what is learned: heads, phases, evaluators",
    "data": "what it is learned from",
    "prior": "p(z), the prior of the style code",
    "schedule": "when and how fast",
    "network": "encoder, decoder and discriminators",
    "experiment": "all of it at once, by the paper's names",
    "search": "what an Optuna sweep (-m) varies, and what it lowers",
}


def _options(arguments: Sequence[str]) -> tuple[bool, list[Path], list[str]]:
    """Whether it is a sweep, the folder after --config-dir if there is one, and the other arguments.

    Raises:
        ConfigError: the name of the folder is empty.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    known, others = parser.parse_known_args(arguments)
    if known.config_dir == "":
        raise ConfigError("--config-dir: its name is empty. Name one that holds groups, or leave it out.")
    return known.multirun, [Path(known.config_dir)] if known.config_dir else [], others


def _groups_help() -> str:
    """The config groups, their choices and a line about each, as `--help` shows them."""
    _, folders, _ = _options(sys.argv[1:])
    lines = []
    for group, meaning in GROUPS.items():
        if found := choices(group, *folders):
            lines += ["", f"{group}: {meaning}"]
            width = max(len(name) for name in found)
            lines += [f"  {group}={name:<{width}}  {text}" for name, text in found.items()]
    return "\n".join(lines).strip()


OmegaConf.register_new_resolver("aae.groups", _groups_help, replace=True)


def _settings_digest(_root_: DictConfig) -> str:
    """Ten hexadecimal digits of the overrides of a command that change what its runs learn, in any order."""
    left_out = {*constant_keys(_root_.get("data"))} - {"seed", "schedule.epochs", "objective"}
    texts: Any = OmegaConf.to_container(_root_.hydra.overrides.task, resolve=False)
    kept = []
    for text in texts:
        key = text.partition("=")[0].lstrip("+~")
        named = key in ("data", "variant", "search")  # beside the digest
        if not named and not {key, key.partition(".")[0]} & left_out:
            kept.append(text)
    return hashlib.sha256(json.dumps(sorted(kept)).encode()).hexdigest()[:10]


OmegaConf.register_new_resolver("aae.settings", _settings_digest, replace=True)


class _Ended(BaseException):
    """Carries the error of a single run past Hydra, which would print a line of its own before ours."""

    def __init__(self, error: AAEError) -> None:
        super().__init__(str(error))
        self.error = error


class SweepStart(Callback):
    """Remembers in which folder the jobs of a sweep report."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls it before the first job."""
        SweepStart.folder = Path(config.hydra.sweep.dir)
        with contextlib.suppress(OSError):  # a study may lie beside it; Hydra says what is wrong
            SweepStart.folder.mkdir(parents=True, exist_ok=True)


def job(composed: DictConfig) -> float | None:
    """One run; returns its objective, for a sweeper that searches.

    What goes wrong in a job of a sweep is told at once; the other jobs go on. To a search, a run that
    diverges is infinitely bad, and no failure; one that cannot be built is infinitely bad, and one.
    """
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        try:
            return _run(composed)[1]
        except AAEError as error:
            raise _Ended(error) from error
    folder, number = Path(HydraConfig.get().sweep.dir), int(HydraConfig.get().job.num)
    outcome = Outcome(number, list(HydraConfig.get().overrides.task))
    try:
        run, outcome.objective = _run(composed)
        outcome.where = str(run)
        return outcome.objective
    except Interrupted as error:
        outcome.status, outcome.said = error.status, str(error)
        raise
    except (Exception, SystemExit) as error:
        stopped = error.__context__
        if isinstance(stopped, Interrupted):  # and a launcher's handler has put the job into its queue again
            outcome.status, outcome.said = stopped.status, str(stopped)
            raise
        known = error if isinstance(error, AAEError) else _unexpected(error)
        outcome.status, outcome.said = known.status, str(known)
        outcome.where = str(folder / f"job_{number}.log")
        try:
            write(Path(outcome.where), traceback.format_exc().encode())
        except DiskError as full:  # of two errors, the job's own is told
            outcome.where = str(full)
        print(f"aae-run: {' '.join(outcome.overrides)}: {known}", file=sys.stderr)
        if composed.objective is not None and _bad_choice(error, folder):
            outcome.objective = math.inf
            if isinstance(error, NumericalError):
                outcome.status = 0
            return outcome.objective
        known.status = 1  # of the sweep
        _let_go(error)
        raise known from error
    finally:
        outcome.append_to(folder)


def _let_go(error: BaseException | None) -> None:
    """Hydra keeps each job's error until the sweep ends: without what its frames hold, model and images."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ if error.__cause__ is not error else None


def _bad_choice(error: BaseException, folder: Path) -> bool:
    """Whether an error is due to what a search chose; a mistake in all of its trials is in the first, too."""
    if isinstance(error, ConfigError):
        return any(one.status == 0 for one in read_outcomes(folder))
    return isinstance(error, NumericalError)


def _unexpected(error: BaseException) -> AAEError:
    if isinstance(error, SystemExit):  # it would end the whole sweep, and silently
        return AAEError(f"the job called sys.exit({error.code}).")
    return AAEError(f"{type(error).__name__}: {error}.")


def _run(composed: DictConfig) -> tuple[Path, float | None]:
    """The folder of the run, and its objective."""
    if composed.objective is None and "optuna" in str(HydraConfig.get().sweeper.get("_target_")):
        raise ConfigError("objective=null: a search needs one, such as objective=valid/error_rate.")
    folder, results = launch(composed, HydraConfig.get())

    from aae_runner.report import closing_table, show

    with contextlib.suppress(SystemExit):  # a closed pipe
        show(closing_table(results, folder))
    if (name := composed.objective) is None:
        return folder, None
    if not isinstance(objective := results.get(name), float):
        found = [tag for tag, value in results.items() if isinstance(value, float)]
        raise ConfigError(f"objective={name}: the run found no such metric.{nearest(name, found)}")
    return folder, objective


def _leave(message: str, status: int) -> NoReturn:
    print(f"aae-run: {message}", file=sys.stderr)
    sys.exit(status)


def _close_sweep(folder: Path) -> None:
    """Shows how the jobs of a sweep ended; leaves with status 1 where one failed."""
    outcomes = read_outcomes(folder)
    with contextlib.suppress(SystemExit):  # a closed pipe
        print_outcomes(outcomes)
    if failed := sum(one.status != 0 for one in outcomes):
        _leave(
            f"{failed} of {len(outcomes)} jobs failed. The same command runs only what is not finished.", 1
        )


def main() -> None:
    """The command `aae-run`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing and exiting with 1
    run = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    try:
        sweep, folders, others = _options(sys.argv[1:])
        refuse(others, folders)
        # between overrides Hydra takes no option
        options = [*["-m"] * sweep, *(part for one in folders for part in ("--config-dir", str(one)))]
        sys.argv[1:] = [*options, *(left_to_jobs(others) if sweep else others)]
        run()
    except _Ended as ended:
        _leave(str(ended.error), ended.error.status)
    except AAEError as error:
        if SweepStart.folder is not None:
            _close_sweep(SweepStart.folder)
        _leave(str(error), error.status)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _leave(explain(error), ConfigError.status)
    except Interrupted as error:
        if SweepStart.folder is not None:
            print_outcomes(read_outcomes(SweepStart.folder))
        _leave(str(error), error.status)
    except KeyboardInterrupt:
        _leave("interrupted.", 130)
    except BrokenPipeError:  # output piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # Hydra makes the folder of a sweep before its first job
        if SweepStart.folder is None or not SweepStart.folder.is_relative_to(error.filename or os.devnull):
            raise
        _leave(str(unwritable(SweepStart.folder, error)), DiskError.status)
    else:
        if SweepStart.folder is not None:
            _close_sweep(SweepStart.folder)
