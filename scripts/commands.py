"""Runs every aae-run and aae command of README.md and docs/*.md, as written but small, in an empty folder.

    python scripts/commands.py

A command is taken from a ```bash block, together with its pipes and redirections. Small means: `SMALL` is
appended to each run, and `TURNED` turns data that would have to be downloaded into the embedded digits. The
first command that fails ends it. A command is a fork of one process that has imported what all of them
import, which takes longer than such a run; what a start takes is for tests and scripts/benchmark.py.
"""

import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SMALL = "schedule.epochs=1 network.encoder.width=16 network.decoder.width=16 network.discriminator.width=16"
TURNED = {
    r"\bdata=(mnist|fashion_mnist|svhn)\b": "data=digits",
    r"\bdata\.(download|checksums|extra)=\S+": "",                   # digits have no files
    r"(?<!data=images )(?<!data=arrays )\bdata\.root=\S+": "",
    r"\bruns/(mnist|fashion_mnist|svhn)\b": "runs/digits",
    r"\bexperiment=best_table3_16\b": r"\g<0> heads.label.size=32 "
    "schedule.phases.merging.start=0 schedule.phases.merging_again.start=0",
    r"\bheads\.label\.size=30 \+": "heads.label.size=20 +",
    r"\bheads\.label\.size=200 \+": "heads.label.size=24 +",
    r"\bmerging\.start=15": "merging.start=0",
    r"('?)\bexperiment=": r"data=digits data.labels=100 \1experiment=",  # all are of MNIST or SVHN
    r"\breport --paper\b": "report",  # made small, an experiment is the run of an earlier command
    r"range\(\d+\)": "range(1)",
    r"\bseed=0,1,2\b": "seed=0",
    r"\bhydra\.sweeper\.n_trials=\S+": "",
    r"\bsearch=": "hydra.sweeper.n_trials=1 search=",
    r"\bruns/digits/clustering/[0-9a-f]{10}\b": "$(ls -td runs/digits/clustering/* | head -n 1)",
    r"\bIDENTITY\b": "$(ls runs/digits/semi_supervised | head -n 1)",
    r"\bRUN\b": "$(ls -d runs/digits/semi_supervised/*/seed0 | head -n 1)",
    r"\bFOLDER\b": "pets",
    r"^exec ": "",
}  # fmt: skip
"""What is replaced in a command, in this order."""
IMPORTED = (
    "torch._dynamo", "torch.utils.tensorboard", "sklearn.datasets", "matplotlib.figure",
    "aae_runner.cli", "aae_runner.toolbox", "aae_runner.trainer",
)  # fmt: skip
"""By every command, or nearly."""
PROGRAMS = {"aae-run": "aae_runner.cli", "aae": "aae_runner.toolbox"}
CLIENT = """
import json, os, socket, sys
server, *command = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as channel:
    channel.connect(server)
    socket.send_fds(channel, [json.dumps([command, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
    status = channel.recv(3)
    channel.recv(1)  # nothing: that it has ended
    sys.exit(int(status or 1))
"""
FUNCTIONS = f"""
asked() {{ '{sys.executable}' -ISc '{CLIENT}' "$SERVER" "$@"; }}
aae-run() {{ asked aae-run "$@" {SMALL}; }}
aae() {{ asked aae "$@"; }}
"""
SKIPPED = {
    r"launcher=submitit_slurm": "needs a cluster",
    r"^aae data (fetch|verify)": "needs the network",
    r"\bdevice=cuda": "needs a GPU",
    r"\.\.\.(\s|$)": "is a pattern, not a command",
}


def commands(page: Path) -> list[str]:
    """The commands of a page; other programs' (pip, tensorboard) are not ours to try."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(\w+=\S+ |exec )*aae(-run)?( |$)", line)]


def turned(command: str) -> str:
    """A command that needs nothing but the digits."""
    for pattern, text in TURNED.items():
        command = re.sub(pattern, text, command)
    return command


def furnish(folder: Path) -> None:
    """What the commands of a user's own data find: pets/, faces/, and the examples in docs/."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("pets/train/cat", "pets/train/dog"):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    (folder / "faces").mkdir()
    np.savez(folder / "faces" / "train.npz", images=random.integers(0, 256, (60, 48, 48), dtype=np.uint8))
    (folder / "docs").symlink_to(ROOT / "docs")


@contextmanager
def serving() -> Iterator[Path]:
    """A process of which commands are asked, and its address."""
    folder = Path(tempfile.mkdtemp())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "server"))
        listener.listen()
        process = os.fork()
        if process == 0:
            serve(listener)
    try:
        yield folder / "server"
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        shutil.rmtree(folder)


def serve(listener: socket.socket) -> NoReturn:
    """Forks for each command, and never returns."""
    for module in IMPORTED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        channel, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(channel)
        channel.close()


def answer(channel: socket.socket) -> NoReturn:
    """Runs a command with the folder, variables and streams of who asks; tells its status and ends.

    It ends as a program does, so that the processes of a parallel sweep end with it.
    """
    said, streams, *_ = socket.recv_fds(channel, 1 << 20, 3)
    sys.argv, folder, environment = json.loads(said)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    status: int | str | None = 0
    try:
        importlib.import_module(PROGRAMS[sys.argv[0]]).main()
    except SystemExit as ended:
        status = ended.code
    channel.sendall(str(int(status or 0)).encode())
    sys.exit()


def run(page: Path, server: Path) -> tuple[int, int]:
    """Runs the commands of a page: how many, and how many were skipped."""
    ran = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        for command in commands(page):
            reason = next((why for what, why in SKIPPED.items() if re.search(what, command)), "")
            print(f"{page.name}: {command}{reason and f'  (skipped: {reason})'}", flush=True)
            if reason:
                skipped += 1
                continue
            script = f"set -o pipefail\n{FUNCTIONS}\n{turned(command)}"
            done = subprocess.run(
                ["bash", "-c", script], cwd=folder, env=os.environ | {"SERVER": str(server)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
                sys.exit(f"{said}\n{page.name}: {command}\nexits with {done.returncode}")
            ran += 1
    return ran, skipped


def main() -> None:
    begun = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # two commands at a time: threads that wait for busy cores slow all
    with serving() as server, ThreadPoolExecutor(2) as pool:  # a page in a folder of its own, two at a time
        counts = list(pool.map(partial(run, server=server), PAGES))
    ran, skipped = (sum(column) for column in zip(*counts, strict=True))
    print(f"{ran} commands run, {skipped} skipped, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
