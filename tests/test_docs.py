"""The pages say what the program does, and their examples run."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, Command

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"


def test_the_configuration_reference_is_what_conf_and_the_annotations_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        (["variant=basic", "prior=ring"], "figures/latent_map.png"),
        (["data=moons"], "figures/style_grid.png"),
        (["variant=basic", "+phase@phases.code_norm=code_norm"], "figures/latent_map.png"),
        (["data=moons", "variant=ring"], "figures/code_lengths.png"),
    ],
    ids=["prior", "data set", "phase", "evaluator"],
)
def test_each_example_of_ones_own_trains(
    overrides: list[str], left: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    short = "schedule.epochs=1", "logging.every=5", *TINY
    status, said = command("--config-dir", str(EXAMPLES), *overrides, *short)
    assert (status, said) == (0, "")
    assert list(tmp_path.glob(f"runs/*/*/*/seed0/{left}"))
    rows = next(tmp_path.glob("runs/*/*/*/seed0/metrics.jsonl")).read_text()
    assert ("loss/code_norm" in rows) == any("code_norm" in one or one == "variant=ring" for one in overrides)
