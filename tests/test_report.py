"""The table over seeds."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from aae_runner import toolbox
from aae_runner.errors import ConfigError
from aae_runner.report import seeds_table


def test_the_report_gives_mean_and_deviation_over_seeds_of_one_length_beside_the_paper(
    tmp_path: Path,
) -> None:
    paper = {"metric": "test/error_rate", "value": 0.019, "deviation": 0.001, "source": "Table 2"}
    for seed, rate in enumerate((0.01, 0.02, 0.03)):
        folder = tmp_path / "digits" / "basic" / "0123456789" / f"seed{seed}"
        folder.mkdir(parents=True)
        results = {
            "test/error_rate": rate,
            "test/coverage": 0.5,
            "test/coverage_reference": 0.9,
            "epochs": 5 if seed < 2 else 9,
            "config": {"reference": paper},
            "data": {"note": ""},
            "environment": {"seconds": 2.0},
        }
        (folder / "results.json").write_text(json.dumps(results))
    console = Console(width=200, record=True)
    console.print(seeds_table(tmp_path))
    said = console.export_text()
    assert "1.50 ± 0.71 %" in said  # of equal lengths
    assert "3.00 %" in said
    assert said.count("1.90 ± 0.10 % (Table 2)") == 2
    assert said.count("0.9 (a fresh prior sample)") == 2
    assert "coverage_reference" not in said
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
