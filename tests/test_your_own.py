"""A user's own prior and variant, in a folder of theirs, given by --config-dir alone."""

import json
import sys
from pathlib import Path

import pytest
from conftest import TINY, Command

from aae_runner.build import Builder
from aae_runner.errors import ConfigError

RING = '''
from typing import Annotated
import torch
from annotated_types import Gt
from aae_runner.priors import Prior

class Ring(Prior):
    """Points on a circle."""
    def __init__(self, size, /, *, radius: Annotated[float, Gt(0)]):
        super().__init__(2)
        self.radius = radius

    def sample(self, n, labels=None):
        angle = 2 * torch.pi * torch.rand(n, device=self.origin.device)
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)
'''
VARIANT = """
# @package _global_
# Mine
defaults:
  - basic
  - override /prior: ring
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])  # each test has a folder of its own
    monkeypatch.delitem(sys.modules, "ring_prior", raising=False)
    folder = tmp_path / "own"
    for name, text in {
        "ring_prior.py": RING,
        "prior/ring.yaml": "_target_: ring_prior.Ring\nradius: 4.0\n",
        "variant/mine.yaml": VARIANT,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_with_a_prior_and_a_variant_trains(own: Path, command: Command, tmp_path: Path) -> None:
    status, said = command("--config-dir", str(own), "variant=mine", "schedule.epochs=1", *TINY)
    assert (status, said) == (0, "")
    (results,) = (tmp_path / "runs" / "digits" / "mine").glob("*/seed0/results.json")
    assert json.loads(results.read_text())["config"]["prior"] == {
        "_target_": "ring_prior.Ring",
        "radius": 4.0,
    }


def test_its_arguments_are_checked_like_ours(own: Path, command: Command) -> None:
    status, said = command("--config-dir", str(own), "variant=mine", "prior.radius=-1", *TINY)
    assert status == 2
    assert "prior" in said
    assert "radius=-1" in said


def test_a_prior_that_cannot_be_sampled_is_refused_before_anything_is_written(
    own: Path, command: Command, tmp_path: Path
) -> None:
    (own / "ring_prior.py").write_text(RING.replace("def sample", "def draw"))
    status, said = command("--config-dir", str(own), "variant=mine", *TINY)
    assert status == 2
    assert "_target_=ring_prior.Ring: its method sample is missing" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("target", "missing"),
    [("evaluators.Evaluator", "__call__"), ("consistency.Consistency", "changed")],
)
def test_what_our_bases_leave_open_cannot_be_used_as_it_is(target: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"its method {missing} is missing"):
        Builder()({"_target_": f"aae_runner.{target}"}, "key")


def test_a_file_that_is_no_yaml_is_named_with_its_line(own: Path, command: Command) -> None:
    (own / "prior" / "bad.yaml").write_text("# Bad\n_target_: ring_prior.Ring\nradius: [4.0\n")
    status, said = command("--config-dir", str(own), "variant=basic", "prior=bad")
    assert status == 2
    assert "bad.yaml, line 4: this is no yaml" in said


def test_without_the_folder_its_module_is_not_trusted(command: Command) -> None:
    status, said = command("variant=basic", "prior._target_=ring_prior.Ring")
    assert status == 2
    assert "trusted" in said
