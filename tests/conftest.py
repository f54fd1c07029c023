"""What several tests need: a composed config, a command, a finished run, small files in original formats."""

import contextlib
import gzip
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

import aae_runner
from aae_runner import cli, toolbox
from aae_runner.build import Builder
from aae_runner.config import CONF, Config, settle
from aae_runner.experiment import Experiment, prepare
from aae_runner.finished import Finished
from aae_runner.series import Series, read_series

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start
os.environ["COLUMNS"] = "160"  # tables are not wrapped, whatever terminal the tests run in

Command = Callable[..., tuple[int, str]]
Toolbox = Callable[..., tuple[int, str]]
Run = Callable[[str], Finished]

TINY = (
    "network.encoder.width=16", "network.decoder.width=16", "network.discriminator.width=16",
)  # fmt: skip
"""Networks that train in no time."""

PAPER = {"metric": "test/error_rate", "value": 0.019, "deviation": 0.001, "source": "Table 2"}
"""A number of the paper, as results.json has it."""


def composed(*overrides: str) -> Config:
    """The settled config of a command."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settle(compose("config", overrides=list(overrides)))


def experiment(*overrides: str) -> Experiment:
    """All parts of a run on the embedded digits, with tiny networks."""
    return prepare(composed(*TINY, *overrides), Builder())


def spoilt(content: bytes, how: str) -> bytes:
    """Damages: `cut PERCENT`, `flip PLACE` (one bit), `zeros PLACE` (a page), with 0 <= PLACE < 1."""
    kind, number = how.split()
    if kind == "cut":
        return content[: int(len(content) * float(number) / 100)]
    place = int(len(content) * float(number))
    if kind == "zeros":
        return content[:place] + bytes(len(content[place : place + 4096])) + content[place + 4096 :]
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES = "cut 0", "cut 10", "cut 50", "cut 99.9", "flip 0.001", "flip 0.5", "flip 0.9", "zeros 0.5"


def exit_status(program: str, *arguments: str | Path) -> int:
    """Runs `aae-run` or `aae` with arguments, in this process and folder."""
    main = {"aae-run": cli.main, "aae": toolbox.main}[program]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *map(str, arguments)])
        status: str | int | None = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    assert isinstance(status, int)
    return status


def trained(folder: Path, *arguments: str) -> Path:
    """The folder, in which `aae-run` with arguments has come to its end."""
    with contextlib.chdir(folder):
        assert exit_status("aae-run", *arguments) == 0
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `aae-run` with arguments in an empty folder: (exit status, what it printed on stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        return exit_status("aae-run", *arguments), capfd.readouterr().err

    return run


def finished(folder: Path, rate: float = 0.02, **changed: Any) -> Path:
    """A run folder, <identity>/seed<N>, with results.json; in `changed` are entries of that."""
    folder.mkdir(parents=True)
    results: dict[str, Any] = {
        "identity": folder.parent.name,
        "test/coverage": 0.5,
        "test/error_rate": rate,
        "test/coverage_reference": 0.9,
        "epochs": 5,
        "config": {"reference": PAPER, "heads": {"style": {"_target_": "a.Head", "size": 2}}},
        "data": {"note": ""},
        "environment": {"torch": "2.14", "seconds": 2.0},
        **changed,
    }
    seed = re.match(r"seed(\d+)", folder.name)
    results["config"] = {"seed": int(seed[1]) if seed else 0, **results["config"]}
    results["data"] = {"fingerprint": "f", **results["data"]}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


SHORT = ("schedule.epochs=2", "logging.every=5")
MORE = {
    "semi_supervised": ["evaluators.error_rate.every=1"],
    "basic": ["evaluators.log_likelihood=null"],
    "vae": ["evaluators.log_likelihood=null"],
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run of a variant on digits, opened; trained once."""
    folder = tmp_path_factory.mktemp("runs")

    def opened(variant: str) -> Finished:
        more = MORE.get(variant, [])
        return aae_runner.train([f"variant={variant}", f"runs={folder}", *SHORT, *TINY, *more])

    return opened


@pytest.fixture
def aae(capfd: pytest.CaptureFixture[str]) -> Toolbox:
    """Runs `aae` with arguments: (exit status, what it printed)."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        capfd.readouterr()  # what training has said
        status = exit_status("aae", *arguments)
        said = capfd.readouterr()
        return status, said.out + said.err

    return run


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """Four files in MNIST's format: 50,010 training images of 1x1 pixels and 20 test images."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 50_010), ("t10k", 20)):
        values = (np.arange(n) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", values.reshape(n, 1, 1)),
                            (f"{part}-labels-idx1-ubyte", values)):  # fmt: skip
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path / "data"


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as a file of MNIST's format."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


@pytest.fixture
def svhn_root(tmp_path: Path) -> Path:
    """Two files in SVHN's layout: 200 training and 50 test images, the digit 0 written as 10."""
    random = np.random.default_rng(0)
    folder = tmp_path / "svhn"
    folder.mkdir()
    for part, n in (("train", 200), ("test", 50)):
        pixels = random.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        labels = (np.arange(n) % 10 + 1).astype(np.uint8).reshape(-1, 1)
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": pixels, "y": labels})
    return folder


def three_seeds(runs: Path) -> list[Series]:
    """Three finished runs of one config."""
    for seed, rate in enumerate((0.01, 0.02, 0.04)):
        finished(runs / "digits" / "basic" / "0123456789" / f"seed{seed}", rate)
    return read_series([runs])[0]
