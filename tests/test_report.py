"""The table over seeds."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from aae_runner import toolbox
from aae_runner.errors import ConfigError
from aae_runner.report import seeds_table


def test_the_report_gives_mean_and_deviation_over_seeds_in_per_cent(tmp_path: Path) -> None:
    for seed, rate in enumerate((0.01, 0.02, 0.03)):
        folder = tmp_path / "digits" / "basic" / "0123456789" / f"seed{seed}"
        folder.mkdir(parents=True)
        results = {
            "test/error_rate": rate,
            "epochs": 5,
            "data": {"note": ""},
            "environment": {"seconds": 2.0},
        }
        (folder / "results.json").write_text(json.dumps(results))
    console = Console(width=200, record=True)
    console.print(seeds_table(tmp_path))
    said = console.export_text()
    assert "2.00 ± 1.00 %" in said
    assert "digits/basic/0123456789" in said


def test_a_folder_without_runs_is_a_sentence_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        seeds_table(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aae", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        toolbox.main()
    assert ended.value.code == 2
    assert "no finished run" in capsys.readouterr().err
