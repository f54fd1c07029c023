"""Kills the real command at random moments, over and over, and compares how it ends.

    python scripts/torture.py                   # 30 kills of an eager run: about 5 minutes on 2 cores
    python scripts/torture.py --engine compile  # the same, compiled
    python scripts/torture.py --pairs 20        # two commands at once, twenty times

One semi-supervised run on the embedded digits is trained without interruption. Then the same command is
started again and again in another folder, and ended by SIGKILL (every sixth time asked by SIGTERM) after a
random time: while it starts, trains, looks or saves. When it has been killed often enough it is left to
finish. Weights and metrics.jsonl must have the same SHA-256. Exit status 0 when they do, 1 when not.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINING = (
    "evaluators.error_rate.every=1", "evaluators.latent_map.every=50", "logging.every=7",
    "checkpoint.steps=40", "logging.progress=false",
    "network.encoder.width=32", "network.decoder.width=32", "network.discriminator.width=32",
)  # fmt: skip
IN_USE = 7


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """The real command in a folder, on one thread, so that machines with other work end alike."""
    return subprocess.Popen(
        [sys.executable, "-m", "aae_runner", *TRAINING, *arguments],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def ending(folder: Path) -> dict[str, str]:
    """SHA-256 of what a run has ended with."""
    (run,) = (folder / "runs").glob("*/*/*/seed0")
    names = "model.safetensors", "metrics.jsonl"
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def finish(folder: Path, arguments: list[str]) -> float:
    """Lets the command run to its end; returns the seconds it took."""
    began = time.monotonic()
    process = start(folder, arguments)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"the command ended with status {process.returncode}: {said}")
    return time.monotonic() - began


def progress(folder: Path, epochs: int) -> float:
    """The share of its steps that a run has saved."""
    steps = [int(path.stem.removeprefix("step_")) for path in folder.rglob("step_*.pt")]
    return max(steps, default=0) / (10 * epochs)


def kill_often(
    folder: Path, arguments: list[str], *, kills: int, epochs: int, life: float, deadline: float
) -> int:
    """Ends the command at random moments of its life (seconds); returns how often it was killed.

    Where the run comes to its end before it was killed often enough, because the machine has become faster,
    it begins again, with lives half as long.
    """
    done = lives = 0
    while done < kills and time.monotonic() < deadline:
        # where it is ahead of the kills, it is killed while it starts, so that it does not finish before them
        longest = life if progress(folder, epochs) <= done / kills else life / 4
        process = start(folder, arguments)
        asked = lives % 6 == 5
        lives += 1
        try:
            process.wait(timeout=random.uniform(0.1, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM if asked else signal.SIGKILL)
            done += not asked
        _, said = process.communicate()
        if process.returncode == 0:
            shutil.rmtree(folder / "runs")
            done, life = 0, life / 2
            print(f"finished too early; again, with lives of up to {life:.1f} s")
            continue
        if process.returncode not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            sys.exit(f"the command ended with status {process.returncode}: {said}")
        print(f"\r{done} kills", end="", flush=True)
    print()
    return done


def contend(folder: Path, pairs: int) -> None:
    """Starts two commands at once; one must train, the other must be refused with status 7."""
    for number in range(pairs):
        pair = [start(folder, [f"seed={number}", "schedule.epochs=100000"]) for _ in range(2)]
        while all(one.poll() is None for one in pair):
            time.sleep(0.05)
        refused = [one for one in pair if one.poll() is not None]
        for one in pair:
            one.kill()
        said = [one.communicate()[1] for one in refused]
        if [one.returncode for one in refused] != [IN_USE]:
            sys.exit(f"expected one refusal with status 7, got {said}")
        print(f"\r{number + 1} pairs", end="", flush=True)
    print("\nof each pair one trained and one was refused: OK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=["eager", "compile"], default="eager")
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs (default: 30)")
    parser.add_argument("--epochs", type=int, default=400, help="of ten steps (default: 400)")
    parser.add_argument("--minutes", type=float, default=30, help="give up after (default: 30)")
    parser.add_argument("--pairs", type=int, default=0, help="start two at once so often, and kill nothing")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    given = parser.parse_args()
    random.seed(given.seed)
    arguments = [f"engine={given.engine}", f"schedule.epochs={given.epochs}"]
    deadline = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed, short = (Path(scratch) / name for name in ("whole", "killed", "short"))
        for folder in (whole, killed, short):
            folder.mkdir()
        if given.pairs:
            contend(short, given.pairs)
            return
        seconds = finish(whole, arguments)
        startup = finish(short, [f"engine={given.engine}", "schedule.epochs=1"])
        life = min(startup + 3 * (seconds - startup) / given.kills, seconds / 2)
        print(f"uninterrupted: {seconds:.0f} s; starting alone: {startup:.0f} s; lives of up to {life:.1f} s")
        kills = kill_often(
            killed, arguments, kills=given.kills, epochs=given.epochs, life=life, deadline=deadline
        )
        finish(killed, arguments)
        one, other = ending(whole), ending(killed)
    for name in one:
        print(f"{name}: {one[name][:16]} uninterrupted, {other[name][:16]} after {kills} kills")
    if one != other or kills < given.kills:
        sys.exit("NOT the same" if one != other else f"only {kills} kills in {given.minutes} minutes")
    print("the same: OK")


if __name__ == "__main__":
    main()
