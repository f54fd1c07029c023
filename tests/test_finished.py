"""Runs opened again: from a script, and side by side."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import TINY, Command, Run, Toolbox, trained
from matplotlib.image import imread

import aae_runner
from aae_runner.data import normalize
from aae_runner.errors import CheckpointError, ConfigError, DataError


def test_two_runs_are_drawn_side_by_side(run: Run, aae: Toolbox, tmp_path: Path) -> None:
    runs = [run(variant).folder for variant in ("basic", "vae")]
    picture = tmp_path / "both.png"
    status, said = aae("compare", *runs, "--names", "AAE", "VAE", "--sampled", "-o", picture)
    assert status == 0, said
    height, width = imread(picture).shape[:2]
    assert width > 1.5 * height


def test_the_clustering_that_no_other_agrees_with_comes_last_whatever_clusters_are_called(
    run: Run, aae: Toolbox, tmp_path: Path
) -> None:
    folder = run("clustering").folder
    renamed, alone = (shutil.copytree(folder, tmp_path / name) for name in ("renamed", "alone"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    label = {name: tensor for name, tensor in weights.items() if "heads.label" in name and tensor.ndim}
    rolled = {name: tensor.roll(1, dims=0) for name, tensor in label.items()}
    safetensors.torch.save_file(weights | rolled, renamed / "model.safetensors")
    blind = {name: torch.randn_like(tensor) for name, tensor in label.items() if tensor.ndim == 2}
    safetensors.torch.save_file(weights | blind, alone / "model.safetensors")

    status, said = aae("agree", alone, renamed, folder)
    assert status == 0, said
    *first, last = [line.split()[-2] for line in said.splitlines()[1:]]
    assert (set(first), last) == ({folder.name, "renamed"}, "alone")
    assert aae("agree", folder, renamed)[1].count("1.000") == 2

    results = json.loads((folder / "results.json").read_text())
    results["data"]["fingerprint"] = "0"
    (alone / "results.json").write_text(json.dumps(results))
    for other, sentence in (
        (run("basic").folder, "has no categorical head"),
        (alone, f"{alone}: is of other data than {folder}"),
    ):
        status, said = aae("agree", folder, other)
        assert (status, sentence in said) == (2, True), said
    assert aae("agree", folder) == (2, "aae: agree: name two runs or more.\n")


def test_what_cannot_be_opened_or_drawn_is_a_sentence_and_leaves_no_picture(
    run: Run, aae: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run("basic").folder
    flipped, other, broken = (
        shutil.copytree(folder, tmp_path / name) for name in ("flipped", "other", "broken")
    )
    weights = flipped / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    results = json.loads((folder / "results.json").read_text())
    results["data"]["fingerprint"] = "0"
    (other / "results.json").write_text(json.dumps(results))
    (broken / "results.json").write_text("{")
    ten = run("semi_supervised").folder
    for second, status, said in (
        (tmp_path, 2, "no finished run"),
        (flipped, 4, "model.safetensors: damaged"),
        (other, 4, "the data are not those"),
        (broken, 4, "results.json: damaged"),
        (ten, 2, "10 dimensions; 2 can be drawn"),
    ):
        assert (found := aae("compare", folder, second))[0] == status, found
        assert said in found[1]
        assert "Traceback" not in found[1]
    assert aae("compare", folder)[0] == 2
    assert aae("compare", folder, folder, "--names", "one")[0] == 2
    assert not Path("compare.png").exists()


@pytest.mark.parametrize(
    "target",
    ["os.system", "logging.os.system", "aae_runner.cli.os.system", "aae_runner.recorder.Recorder"],
)
def test_a_strangers_run_executes_nothing_whatever_its_config_says(
    run: Run, aae: Toolbox, tmp_path: Path, target: str
) -> None:
    folder = shutil.copytree(run("basic").folder, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "metrics.jsonl").write_text("precious")
    results["config"] |= {"trusted": ["os", "logging", "aae_runner"], "runs": str(victim)}
    results["config"]["data"] |= {"_target_": target, "command": f"touch {victim}/executed"}
    (folder / "results.json").write_text(json.dumps(results))
    status, said = aae("compare", folder, folder)
    assert (status, "not from a trusted place" in said) == (2, True)
    assert [path.name for path in victim.iterdir()] == ["metrics.jsonl"]
    assert (victim / "metrics.jsonl").read_text() == "precious"


def test_train_is_the_command_its_run_lies_in_the_same_folder_and_is_continued(command: Command) -> None:
    overrides = ["schedule.epochs=1", "evaluators={}", *TINY]
    assert command(*overrides)[0] == 0
    (folder,) = Path("runs/digits/semi_supervised").glob("*/seed0")
    before = (folder / "results.json").stat().st_mtime_ns
    run = aae_runner.train(overrides)
    assert run.folder == folder
    assert (folder / "results.json").stat().st_mtime_ns == before
    more = aae_runner.train([*overrides, "schedule.epochs=2"])
    assert more.folder == folder
    assert (run.results["epochs"], more.results["epochs"]) == (1, 2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["schedule.epoch=1"], "epochs"),
        (["data=mist"], "mnist"),
        (["prior=null"], "gaussian"),
        (["seed=0,1"], "Ambiguous"),
    ],
)
def test_train_raises_a_sentence_and_does_not_exit(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        aae_runner.train(overrides)


def test_train_and_open_run_find_your_own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    own = Path("my own é")
    (own / "prior").mkdir(parents=True)
    (own / "prior" / "dot.yaml").write_text("# A point\n_target_: dot_prior.Dot\n")
    (own / "dot_prior.py").write_text(
        "from aae_runner.priors import Gaussian\n\n\nclass Dot(Gaussian):\n"
        "    def __init__(self, size, /):\n        super().__init__(size, std=0.1)\n"
    )
    overrides = ["prior=dot", "schedule.epochs=1", "evaluators={}", *TINY]
    run = aae_runner.train(overrides, config_dirs=[own])
    assert float(run.draw(100)["style"].abs().max()) < 1
    with pytest.raises(ConfigError, match=f"^{run.folder}: .*not from a trusted place"):
        aae_runner.open_run(run.folder)
    assert aae_runner.open_run(run.folder, config_dirs=[own]).config == run.config
    with pytest.raises(ConfigError, match="no such folder"):
        aae_runner.train(overrides, config_dirs=["nowhere"])


def test_train_opens_a_finished_run_with_what_its_caller_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["variant=basic", "schedule.epochs=1", "evaluators={}", *TINY]
    folder = aae_runner.train(overrides).folder
    results = json.loads((folder / "results.json").read_text())
    results["config"] |= {"trusted": ["os"]}
    results["config"]["network"]["corruption"] = {"_target_": "os.system", "command": "touch executed"}
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ConfigError, match="not from a trusted place"):
        aae_runner.train(overrides)
    assert not Path("executed").exists()


def test_metrics_are_columns_in_the_order_of_the_steps(run: Run, tmp_path: Path) -> None:
    opened = run("semi_supervised")
    rows = [json.loads(line) for line in (opened.folder / "metrics.jsonl").read_text().splitlines()]
    kept = [(row["step"], row["loss/classification"]) for row in rows if "loss/classification" in row]
    steps, values = opened.metrics["loss/classification"]
    assert list(zip(steps.tolist(), values.tolist(), strict=True)) == kept
    for file in ("results.json", "model.safetensors"):
        (tmp_path / file).write_bytes((opened.folder / file).read_bytes())
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl"):
        _ = aae_runner.open_run(tmp_path).metrics


def test_a_run_is_opened_without_its_data_which_are_read_and_compared_when_asked_for(
    aae: Toolbox, tmp_path: Path
) -> None:
    data, moved = tmp_path / "data", tmp_path / "moved"
    data.mkdir()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(data / "train.npz", images=images, labels=np.arange(60) % 10)
    overrides = ["data=arrays", f"data.root={data}", "data.shape=[1,8,8]", f"runs={tmp_path / 'runs'}"]
    folder = aae_runner.train([*overrides, "schedule.epochs=1", *TINY]).folder
    data.rename(moved)
    opened = aae_runner.open_run(folder)
    assert opened.sample(3).shape == (3, 1, 8, 8)
    with pytest.raises(DataError, match="no such file"):
        opened.snapshot("test")
    assert aae("evaluate", folder)[0] == 3
    assert aae("evaluate", folder, "--data-root", moved)[0] == 0
    np.savez(moved / "train.npz", images=255 - images, labels=np.arange(60) % 10)
    status, said = aae("evaluate", folder, "--data-root", moved)
    assert (status, "the data are not those" in said) == (4, True)


def test_codes_are_those_of_the_evaluators_however_many_images_of_whichever_type(run: Run) -> None:
    opened = run("semi_supervised")
    x = opened.data.test.x
    codes = opened.encode(x)
    assert list(codes) == ["style", "label"]
    assert codes["style"].shape == (500, 10)
    torch.testing.assert_close(codes["label"].sum(1), torch.ones(500))
    many = opened.encode(normalize(x).double().repeat(3, 1, 1, 1))  # more than are encoded at a time
    for name, values in opened.snapshot("test").values.items():
        torch.testing.assert_close(codes[name], values.cpu())
        torch.testing.assert_close(many[name], values.cpu().repeat(3, 1))
    assert not opened.encode(x[:0])["style"].numel()


def test_codes_of_a_snapshot_are_plain_numbers(run: Run) -> None:
    for values in run("basic").snapshot("test").values.values():
        assert not values.requires_grad


def test_classes_are_those_of_the_error_rate(run: Run) -> None:
    opened = run("semi_supervised")
    test = opened.data.test
    wrong = (opened.classify(test.x) != test.y).double().mean()
    assert float(wrong) == opened.results["test/error_rate"]
    with pytest.raises(ConfigError, match="cannot classify"):
        run("basic").classify(test.x)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 8, 8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.int64),
        torch.full((2, 1, 8, 8), 1.5),
        torch.full((2, 1, 8, 8), -0.1),
        torch.full((2, 1, 8, 8), torch.nan),
        np.zeros((2, 1, 8, 8)),
    ],
)
def test_what_is_no_image_of_the_run_is_refused(run: Run, x: Any) -> None:
    with pytest.raises(ConfigError, match="Allowed"):
        run("semi_supervised").encode(x)


def test_what_is_no_code_of_the_run_is_refused(run: Run) -> None:
    opened = run("semi_supervised")
    z, y = torch.zeros(2, 10), torch.eye(10)[:2]
    assert opened.decode({"label": y, "style": z}).shape == (2, 1, 8, 8)
    assert opened.decode({"label": y.long(), "style": z.double()}).shape == (2, 1, 8, 8)
    for values in ({}, {"style": z}, {"style": z, "label": y[:1]}, {"style": z[:, :2], "label": y}):
        with pytest.raises(ConfigError, match=r"Allowed: style of shape \(N, 10\), label of shape"):
            opened.decode(values)
    with pytest.raises(ConfigError, match="no decoder"):
        run("baseline").decode({"label": y})


def test_a_class_sets_y_and_the_part_of_a_prior_whose_discriminator_was_told_the_label(run: Run) -> None:
    drawn = run("semi_supervised").draw(50, label=3)
    assert drawn["label"].equal(torch.eye(10)[3].repeat(50, 1))
    assert drawn["style"].std() > 0.5
    assert run("supervised").draw(2, label=9)["label"].argmax(1).tolist() == [9, 9]
    z = run("label_conditioned").draw(200, label=5)["style"]  # the part at the angle of 180 degrees
    assert float(z[:, 0].max()) < 3
    assert run("semi_supervised").sample(1200).shape == (1200, 1, 8, 8)


def test_parts_of_a_prior_that_no_discriminator_was_told_of_are_no_classes(tmp_path: Path) -> None:
    more = "variant=label_conditioned", "prior.components=12", "schedule.epochs=1", "evaluators={}"
    trained(tmp_path, *TINY, *more)
    (folder,) = tmp_path.glob("runs/digits/*/*/seed0")
    assert aae_runner.open_run(folder).labels == list(range(10))


@pytest.mark.parametrize(
    ("variant", "label"), [("semi_supervised", 10), ("semi_supervised", -1), ("basic", 0), ("baseline", None)]
)
def test_what_cannot_be_drawn_is_a_sentence(run: Run, variant: str, label: int | None) -> None:
    with pytest.raises(ConfigError, match=r"no such class|no prior"):
        run(variant).sample(2, label)


def test_a_run_of_before_a_key_existed_is_opened_and_an_unknown_key_is_told_with_its_file(
    run: Run, tmp_path: Path
) -> None:
    folder = shutil.copytree(run("baseline").folder, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    del results["config"]["objective"]
    (folder / "results.json").write_text(json.dumps(results))
    assert aae_runner.open_run(folder).config.objective is None
    results["config"]["colour"] = "blue"
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ConfigError, match=r"results\.json: colour is not a key"):
        aae_runner.open_run(folder)
