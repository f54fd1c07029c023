"""How fast a step is, always beside something else that is measured in the same minutes.

    python scripts/benchmark.py                    # basic AAE against the textbook loop and pythae
    python scripts/benchmark.py --width 256        # the same with narrow networks
    python scripts/benchmark.py --engines eager compile --precisions auto bfloat16
    python scripts/benchmark.py --settings experiment=quick_table2_mnist_100 --engines eager compile
    python scripts/benchmark.py --scaling          # how time and memory grow with batch, width and images

All train the same networks (784-WIDTH-WIDTH-8 and back, batch norm in the autoencoder, discriminator
8-WIDTH-WIDTH-1) by Adam, or with --settings what those say, on the same pictures of noise: how fast a step is
does not depend on what they show.
Each does so in a process of its own, since what one sets for a whole process (that denormals are flushed,
how memory is handed back) would speed up the others too; and in several, one after the other, since where
its memory happens to lie can cost a process a quarter of its speed. They take turns, so that what else the
machine does falls on all alike; a ratio is that of the medians. Wants an otherwise idle machine.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import pythae, textbook
from rich.console import Console
from shown import comparison_plot, comparison_table, scaling_plot, scaling_table
from torch.utils.flop_counter import FlopCounterMode

from aae_runner.build import Builder
from aae_runner.config import settle
from aae_runner.data import Batch
from aae_runner.environment import environment
from aae_runner.experiment import Experiment, prepare
from aae_runner.launch import compose
from aae_runner.precision import choose_precision, has_bfloat16

BASIC = ["variant=basic", "heads.style.size=8", "network.corruption.noise=0"]
"""What our rivals of the textbook loop train."""
STEPS, TURNS, ROUNDS = 40, 3, 5
"""Steps of a turn; turns of a process, one more warms up; processes of each rival, one after the other."""
BATCHES, WIDTHS, IMAGES = (
    (100, 300, 1000, 3000, 10_000),
    (250, 500, 1000, 2000, 3000),
    (10_000, 60_000, 600_000),
)


@dataclass
class Rival:
    """What is timed, in a process of its own."""

    name: str
    precision: str
    """Of its products: highest, medium or bfloat16."""
    make: tuple[Any, ...]
    """What its process calls to get its loop, and the arguments."""
    process: ProcessPoolExecutor | None = None
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Milliseconds a step, by turn."""

    def start(self) -> None:
        """A fresh process, warm after one turn that does not count."""
        self.process = ProcessPoolExecutor(1, get_context("spawn"), _start, self.make)
        self.process.submit(_turn).result()

    def turn(self) -> None:
        """Times one turn."""
        assert self.process is not None
        wall, cpu = self.process.submit(_turn).result()
        self.wall.append(wall)
        self.cpu.append(cpu)

    def stop(self) -> None:
        """Ends its process."""
        assert self.process is not None
        self.process.shutdown()

    def ratio(self, other: "Rival", clock: str) -> float:
        """How many times faster than another one."""
        theirs: list[float] = getattr(other, clock)
        mine: list[float] = getattr(self, clock)
        return statistics.median(theirs) / statistics.median(mine)


_runs: list[Callable[[], object]] = []
"""Of a rival's process: its one loop."""


def _start(make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
    _runs.append(make(*arguments))


def _turn() -> tuple[float, float]:
    """`STEPS` steps: milliseconds a step, of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    _runs[0]()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) / STEPS * 1e3, (time.process_time() - cpu) / STEPS * 1e3


def noise(n: int) -> NDArray[np.uint8]:
    """n pictures."""
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def ours(folder: Path, overrides: list[str]) -> Experiment:
    """A run of this program on the arrays of a folder."""
    arrays = ["data=arrays", f"data.root={folder}", "evaluators={}"]
    return prepare(settle(compose([*overrides, *arrays])[0]), Builder())


def training(folder: Path, overrides: list[str]) -> Callable[[], None]:
    """Trains on, and reads the losses once a turn, as a report does."""
    run, done = ours(folder, overrides), 0

    def steps() -> None:
        nonlocal done
        losses = [run.step(done + k) for k in range(STEPS)]
        torch.stack([value for terms in losses for value in terms.values()]).tolist()
        done += STEPS

    return steps


def widths(width: int) -> list[str]:
    """Overrides for the width of all networks."""
    return [f"network.{part}.width={width}" for part in ("encoder", "decoder", "discriminator")]


def peak(precision: str, device: torch.device) -> float:
    """Multiplications and additions a second, 10⁹, of the largest product that is worth it."""
    torch.set_float32_matmul_precision("highest" if precision == "bfloat16" else precision)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=kind)
    best = 0.0
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (time.perf_counter() - began) / 1e9)
    return best


def phases(run: Experiment) -> dict[str, float]:
    """Milliseconds of drawing the minibatch and of each phase, medians over `STEPS` steps."""
    spent: dict[str, list[float]] = {}
    for step in range(STEPS):
        batches: dict[str, Batch] = {}
        for phase in (None, *run.phases):
            began = time.perf_counter()
            if phase is None:
                streams = {one.phase.stream for one in run.phases}
                batches = {stream: run.data.draw(stream, step) for stream in streams}
            else:
                phase.set_step(step)
                phase.run(batches)
            if run.data.device.type == "cuda":
                torch.cuda.synchronize()
            name = phase.name if phase else "data"
            spent.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(times) for name, times in spent.items()}


def compare(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rivals in turns, of ours each engine at each precision; everything that the table shows."""
    width, batch, precisions = asked.width, asked.batch, asked.precisions
    images = noise(STEPS * batch)
    np.savez(folder / "train.npz", images=noise(60_000))
    np.savez(folder / "test.npz", images=images[:1000])
    shape = asked.settings or [*BASIC, *widths(width), f"schedule.batch={batch}"]
    first = ours(folder, [*shape, "precision=highest"])
    device = first.data.device
    fastest, _ = choose_precision("auto", device)
    if "bfloat16" in precisions and not has_bfloat16(device):
        print("The hardware has no bfloat16, so that is left out.", file=sys.stderr)
        precisions = [one for one in precisions if one != "bfloat16"]
    precisions = list(dict.fromkeys(fastest if one == "auto" else one for one in precisions))
    batch, rivals = first.config.schedule.batch, []
    if not asked.settings:
        rivals.append(Rival("textbook", "highest", (textbook, images, width, batch, device)))
        if find_spec("pythae"):
            rivals.append(Rival("pythae", "highest", (pythae, images, width, batch, device)))
        else:
            print("pythae is not installed (extra `bench`), so it is left out.", file=sys.stderr)
    for engine, precision in product(asked.engines, precisions):
        how = f"precision={precision}" if precision != "bfloat16" else "autocast=true"
        make = training, folder, [*shape, f"engine={engine}", how]
        rivals.append(Rival(f"ours, {engine}, {precision}", precision, make))
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", end="\r", file=sys.stderr)
        for one in rivals:
            one.start()
        for _ in range(TURNS):
            for one in rivals:
                one.turn()
        for one in rivals:
            one.stop()
    with FlopCounterMode(display=False) as counter:
        first.step(0)
    work = counter.get_total_flops() / 1e9
    torch.set_float32_matmul_precision(fastest)
    rows = []
    peer = next((one for one in rivals if one.name == "pythae"), None)
    for one in rivals:
        most = peak(one.precision, device)
        rows.append({
            "name": one.name, "wall": one.wall, "cpu": one.cpu,
            "images_per_second": batch / statistics.median(one.wall) * 1e3,
            "times_first": one.ratio(rivals[0], "wall"),
            "times_first_cpu": one.ratio(rivals[0], "cpu"),
            "times_pythae": one.ratio(peer, "wall") if peer else None,
            "peak": most,
            # of the others not their own work, but what of it the algorithm needs
            "share_of_peak": work / statistics.median(one.wall) * 1e3 / most,
        })  # fmt: skip
    return {
        "networks": " ".join(asked.settings) or f"784-{width}-{width}-8",
        "batch": batch, "steps": STEPS, "turns": TURNS, "rounds": ROUNDS,
        "gigaflop_a_step": work, "rows": rows, "phases": phases(first),
        "environment": environment(device, "each"),
    }  # fmt: skip


def alone(overrides: list[str], images: int) -> dict[str, Any]:
    """A run in a process of its own: milliseconds a step, and its peak of memory in megabytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "train.npz", images=np.zeros((images, 28, 28), np.uint8))
        np.savez(folder / "test.npz", images=np.zeros((100, 28, 28), np.uint8))
        run = ours(folder, overrides)
    taken = []
    for step in range(12):
        began = time.perf_counter()
        run.step(step)
        if run.data.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - began) * 1e3)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if run.data.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    return {"milliseconds": statistics.median(taken[2:]), "megabytes": memory}


def scaling() -> dict[str, list[dict[str, Any]]]:
    """How time and memory of a step grow with one number, the others as usual."""
    usual = {"batch": 100, "width": 1000, "images": 60_000}
    found: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, values in (("batch", BATCHES), ("width", WIDTHS), ("images", IMAGES)):
            for value in values:
                setting = usual | {name: value}
                overrides = [*BASIC, *widths(setting["width"]), f"schedule.batch={setting['batch']}"]
                row = {name: value} | pool.submit(alone, overrides, setting["images"]).result()
                found.setdefault(name, []).append(row)
                print(row, file=sys.stderr)
    return found


def main() -> None:
    """Measures, prints, and writes JSON and a plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--width", type=int, default=1000, help="units of a hidden layer")
    parser.add_argument("--batch", type=int, default=100, help="pictures of a minibatch")
    parser.add_argument("--engines", nargs="+", default=["eager"], choices=("eager", "compile", "graph"))
    parser.add_argument(
        "--precisions", nargs="+", default=["highest", "auto", "bfloat16"],
        choices=("highest", "high", "medium", "auto", "bfloat16"),
        help="of each engine; auto: what a run takes here; bfloat16: autocast",
    )  # fmt: skip
    parser.add_argument(
        "--settings", nargs="+", metavar="KEY=VALUE", default=[],
        help="of a run: compare our engines and precisions on it with each other, and with nobody else",
    )  # fmt: skip
    parser.add_argument("--scaling", action="store_true", help="measure how a step grows, instead")
    parser.add_argument("-o", "--output", type=Path, help="FILE.json; the plot is written beside it")
    asked = parser.parse_args()
    if asked.scaling:
        found: dict[str, Any] = scaling()
        table, plot = scaling_table(found), scaling_plot(found)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(asked, Path(folder))
        table, plot = comparison_table(found), comparison_plot(found)
    Console(width=130).print(table)
    if "phases" in found:
        print("ms: " + ", ".join(f"{name} {spent:.2f}" for name, spent in found["phases"].items()))
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=2), encoding="utf-8")
        plot.savefig(asked.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
