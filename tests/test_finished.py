"""Runs opened again, and side by side."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Command
from matplotlib.image import imread

from aae_runner import toolbox

Toolbox = Callable[..., tuple[int, str]]


@pytest.fixture
def aae(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Toolbox:
    """Runs `aae` with arguments: (exit status, what it printed on stderr)."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aae", *map(str, arguments)])
        status: str | int | None = 0
        try:
            toolbox.main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status, capfd.readouterr().err

    return run


def trained(command: Command, variant: str, *more: str) -> Path:
    """The folder of a short run on digits."""
    status, said = command(f"variant={variant}", "schedule.epochs=1", "evaluators={}", *TINY, *more)
    assert status == 0, said
    (results,) = Path("runs/digits").glob(f"{variant}/*/seed0/results.json")
    return results.parent


def test_two_runs_are_drawn_side_by_side(command: Command, aae: Toolbox, tmp_path: Path) -> None:
    runs = [trained(command, variant) for variant in ("basic", "vae")]
    picture = tmp_path / "both.png"
    status, said = aae("compare", *runs, "--names", "AAE", "VAE", "--sampled", "-o", picture)
    assert status == 0, said
    height, width = imread(picture).shape[:2]
    assert width > 1.5 * height


def test_what_cannot_be_opened_or_drawn_is_a_sentence_and_leaves_no_picture(
    command: Command, aae: Toolbox, tmp_path: Path
) -> None:
    run = trained(command, "basic")
    flipped, other, broken = (
        shutil.copytree(run, tmp_path / name) for name in ("flipped", "other", "broken")
    )
    weights = flipped / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    results = json.loads((run / "results.json").read_text())
    results["data"]["fingerprint"] = "0"
    (other / "results.json").write_text(json.dumps(results))
    (broken / "results.json").write_text("{")
    ten = trained(command, "semi_supervised")
    for second, status, said in (
        (tmp_path, 2, "no finished run"),
        (flipped, 4, "model.safetensors: damaged"),
        (other, 4, "the data are not those"),
        (broken, 4, "results.json: damaged"),
        (ten, 2, "10 dimensions; 2 can be drawn"),
    ):
        assert (found := aae("compare", run, second))[0] == status, found
        assert said in found[1]
        assert "Traceback" not in found[1]
    assert aae("compare", run)[0] == 2
    assert aae("compare", run, run, "--names", "one")[0] == 2
    assert not Path("compare.png").exists()


@pytest.mark.parametrize(
    "target",
    ["os.system", "logging.os.system", "aae_runner.cli.os.system", "aae_runner.recorder.Recorder"],
)
def test_a_strangers_run_executes_nothing_whatever_its_config_says(
    command: Command, aae: Toolbox, tmp_path: Path, target: str
) -> None:
    run = trained(command, "basic")
    results = json.loads((run / "results.json").read_text())
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "metrics.jsonl").write_text("precious")
    results["config"] |= {"trusted": ["os", "logging", "aae_runner"], "runs": str(victim)}
    results["config"]["data"] |= {"_target_": target, "command": f"touch {victim}/executed"}
    (run / "results.json").write_text(json.dumps(results))
    status, said = aae("compare", run, run)
    assert (status, "not from a trusted place" in said) == (2, True)
    assert [path.name for path in victim.iterdir()] == ["metrics.jsonl"]
    assert (victim / "metrics.jsonl").read_text() == "precious"
