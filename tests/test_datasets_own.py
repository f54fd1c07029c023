"""A user's own pictures and arrays."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Command, composed
from PIL import Image

from aae_runner.build import Builder
from aae_runner.config import identity
from aae_runner.datasets import Arrays, Pictures
from aae_runner.errors import ConfigError, DataError

COLORS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """20 training and 2 test pictures of each of three colors, 12 wide and 6 high; each picture differs."""
    for part, n in (("train", 20), ("test", 2)):
        for name, color in COLORS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(n):
                picture = Image.new("RGB", (12, 6), tuple(c + k for c in color))
                picture.save(tmp_path / part / name / f"{k:02}.png")
    return tmp_path


def test_a_sub_folder_is_a_class_in_the_order_of_names(pictures: Path) -> None:
    splits = Pictures(root=str(pictures), resize=(3, 4, 8)).read()
    assert [len(split) for split in splits[:3]] == [54, 6, 6]
    assert splits.names == sorted(COLORS)
    assert splits.note == ""
    assert splits.test.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.x.shape == (6, 3, 4, 8)
    assert splits.test.x[:, :, 0, 0].tolist()[::2] == [list(color) for color in COLORS.values()]
    pixels = torch.cat([split.x for split in splits[:2]]).flatten(1)
    assert len(pixels.unique(dim=0)) == 60  # no picture stands in both splits


def test_pictures_become_gray_where_the_shape_has_one_channel(pictures: Path) -> None:
    splits = Pictures(root=str(pictures), resize=(1, 2, 2)).read()
    assert splits.test.x[0].flatten().tolist() == [23] * 4  # 0.114 x 200, the eye's weight of blue


def test_without_a_test_folder_a_tenth_is_held_out_and_said(pictures: Path) -> None:
    shutil.rmtree(pictures / "test")
    splits = Pictures(root=str(pictures), resize=(3, 6, 12)).read()
    assert [len(split) for split in splits[:3]] == [48, 6, 6]
    assert len(torch.cat([split.x for split in splits[:3]]).flatten(1).unique(dim=0)) == 60
    assert "held out" in splits.note


def test_a_single_sub_folder_means_no_labels(pictures: Path) -> None:
    for part in ("train", "test"):
        for name in ("green", "red"):
            shutil.rmtree(pictures / part / name)
    splits = Pictures(root=str(pictures), resize=(3, 6, 12)).read()
    assert not splits.names
    assert "no labels" in splits.note


def test_hidden_and_other_files_are_passed_over_and_folders_inside_a_class_are_not(pictures: Path) -> None:
    red = pictures / "train" / "red"
    (red / "inside").mkdir()
    (red / "00.png").rename(red / "inside" / "00.PNG")
    (red / "notes.txt").write_text("no picture")
    (red / "._01.png").write_text("what a Mac leaves")
    (pictures / "train" / ".ipynb_checkpoints").mkdir()
    (pictures / "train" / "list.csv").write_text("no class")
    splits = Pictures(root=str(pictures), resize=(3, 6, 12)).read()
    assert len(splits.train) + len(splits.valid) == 60


def test_a_picture_is_turned_upright(pictures: Path) -> None:
    sideways = Image.new("L", (4, 2))
    sideways.paste(255, (0, 0, 2, 2))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that the left is the top
    sideways.save(pictures / "test" / "blue" / "00.png", exif=exif)
    x = Pictures(root=str(pictures), resize=(1, 4, 2)).read().test.x[0, 0]
    assert x.tolist() == [[255, 255], [255, 255], [0, 0], [0, 0]]


def test_a_second_start_reads_no_picture_and_a_changed_one_is_read_again(pictures: Path) -> None:
    data = Pictures(root=str(pictures), resize=(3, 6, 12))
    first = data.read()
    path = pictures / "test" / "blue" / "00.png"
    state, good = path.stat(), path.read_bytes()
    path.write_bytes(b"?" * len(good))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # nothing seems to have happened
    second = data.read()
    for one, other in zip(first[:3], second[:3], strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
    with pytest.raises(DataError, match=r"00\.png"):
        Pictures(root=str(pictures), resize=(3, 6, 6)).read()  # another shape is read anew
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(DataError, match=r"00\.png"):
        data.read()


def test_a_cache_that_cannot_be_written_costs_a_warning(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / ".cache").write_text("a file where the folder should be")
    assert len(Pictures(root=str(pictures), resize=(3, 6, 12)).read().train) == 54
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut"])
def test_a_damaged_cache_is_read_anew(
    pictures: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data = Pictures(root=str(pictures), resize=(3, 6, 12))
    first = data.read()
    (kept,) = (pictures / ".cache").iterdir()
    kept.write_bytes(content)
    assert torch.equal(data.read().train.x, first.train.x)
    assert "are read again" in caplog.text
    caplog.clear()
    data.read()
    assert not caplog.text


def saved(picture: Image.Image, path: Path) -> bytes:
    picture.save(path)
    return path.read_bytes()


NOISE = Image.effect_noise((64, 64), 50)
BROKEN: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda folder: b"",
    "text": lambda folder: b"<html>not found</html>",
    "cut PNG": lambda folder: saved(NOISE, folder / "a.png")[:2000],
    "cut JPEG": lambda folder: saved(NOISE, folder / "a.jpg")[:2000],
    "16 bits": lambda folder: saved(
        Image.fromarray(np.full((4, 4), 999, np.uint16)), folder / "b.png"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_picture_is_named_with_the_remedy(
    pictures: Path, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = pictures / "train" / "green" / "07.png"
    path.write_bytes(BROKEN[how](tmp_path_factory.mktemp("broken")))
    with pytest.raises(DataError) as caught:
        Pictures(root=str(pictures), resize=(3, 6, 12)).read()
    assert str(caught.value).startswith(f"{path}: ")
    assert "Save it anew" in str(caught.value)
    assert not (pictures / ".cache").exists()


def keep(n: int, *folders: Path) -> None:
    for folder in folders:
        for path in sorted(folder.glob("*.png"))[n:]:
            path.unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


WRONG_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no train": (lambda root: shutil.rmtree(root / "train"), r"train: no such folder\. Put pictures into"),
    "no classes": (lambda root: empty(root / "train"), "train: no sub-folders"),
    "empty class": (lambda root: empty(root / "train" / "red"), r"red: no pictures\. Allowed are \.png"),
    "class missing in test": (
        lambda root: shutil.rmtree(root / "test" / "red"),
        "test: its sub-folders are blue, green, those of train blue, green, red",
    ),
    "a link to nowhere": (
        lambda root: (root / "train" / "red" / "99.png").symlink_to("nowhere"),
        r"99\.png: cannot be read",
    ),
    "too few": (lambda root: keep(6, *(root / "train").iterdir()), r"train: 18 images\. At least 20"),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG_FOLDERS)
def test_folders_that_are_not_as_they_should_be_are_named(pictures: Path, how: str) -> None:
    change, says = WRONG_FOLDERS[how]
    change(pictures)
    with pytest.raises(DataError, match=says):
        Pictures(root=str(pictures), resize=(3, 6, 12)).read()


def test_own_pictures_train_and_are_told_apart_by_their_folder(
    pictures: Path, command: Command, tmp_path: Path
) -> None:
    shape = "data.shape=[3,4,8]"
    overrides = ("data=images", f"data.root={pictures}", shape, "schedule.epochs=1", *TINY)
    status, said = command(*overrides)
    assert status == 3
    assert "there are 3 classes, but data.classes=10 is stated. Set data.classes=3." in said
    status, said = command(*overrides, "data.classes=3")
    assert (status, said) == (0, "")
    (results,) = (tmp_path / "runs" / "images").glob("*/*/seed0/results.json")
    assert 0 <= json.loads(results.read_text())["test/error_rate"] <= 1
    here, there = (identity(composed("data=images", f"data.root={root}")) for root in ("/a", "/b"))
    assert here != there


def test_pictures_have_one_channel_or_three(command: Command) -> None:
    status, said = command("data=images", "data.shape=[2,8,8]")
    assert status == 2
    assert "data.shape=[2, 8, 8]: pictures have 1 channel or 3" in said


@pytest.fixture
def digits() -> dict[str, Any]:
    """40 images of 3 channels, 4 high and 5 wide, and their labels."""
    random = np.random.default_rng(0)
    return {"images": random.integers(0, 256, (40, 3, 4, 5), dtype=np.uint8), "labels": np.arange(40) % 4}


def arrays(root: Path, shape: tuple[int, int, int] = (3, 4, 5)) -> Arrays:
    return Arrays(root=str(root), x="images", y="labels", expect=list(shape))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_arrays_are_read_in_either_layout(layout: str, digits: dict[str, Any], tmp_path: Path) -> None:
    x = digits["images"] if layout == "NCHW" else digits["images"].transpose(0, 2, 3, 1)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=x, labels=digits["labels"].astype(np.uint8))
    splits = arrays(tmp_path).read()
    assert [len(split) for split in splits[:3]] == [36, 4, 40]
    assert torch.equal(splits.test.x, torch.from_numpy(digits["images"]))
    assert torch.equal(splits.test.y, torch.arange(40) % 4)
    assert len(splits.names) == 4


@pytest.mark.parametrize("shape", [(40, 4, 5), (40, 4, 5, 1), (40, 1, 4, 5)])
def test_gray_arrays_need_no_axis_of_channels(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.arange(800, dtype=np.uint8)
    np.savez_compressed(tmp_path / "train.npz", images=pixels.reshape(shape))
    splits = arrays(tmp_path, (1, 4, 5)).read()
    assert [len(split) for split in splits[:3]] == [32, 4, 4]
    found = torch.cat([split.x for split in splits[:3]])
    assert found.shape == (40, 1, 4, 5)
    expected = torch.from_numpy(pixels).view(40, 20).unique(dim=0)
    assert torch.equal(found.flatten(1).unique(dim=0), expected)


def test_arrays_without_labels_have_the_label_0_and_say_so(digits: dict[str, Any], tmp_path: Path) -> None:
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=digits["images"])
    splits = arrays(tmp_path).read()
    assert int(splits.train.y.abs().sum()) == 0
    assert not splits.names  # so any data.classes will do
    assert "no labels" in splits.note


WRONG_ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "floats": (lambda a: {**a, "images": a["images"] / 255}, "images is float64. Allowed: uint8"),
    "another size": (lambda a: {**a, "images": a["images"][:, :, 1:]}, r"shape \(40, 3, 3, 5\).*\[3,4,5\]"),
    "no channels": (lambda a: {**a, "images": a["images"][:, 0]}, r"shape \(40, 4, 5\)\. Allowed: \(N"),
    "no images": (lambda a: {"pixels": a["images"]}, r"no array images .*\(pixels\)\. data\.x=NAME"),
    "empty": (lambda a: {k: v[:0] for k, v in a.items()}, "at least one image"),
    "few": (lambda a: {k: v[:19] for k, v in a.items()}, "19 images. At least 20"),
    "labels of another number": (lambda a: {**a, "labels": a["labels"][1:]}, r"labels is int64 .*\(39,\)"),
    "labels that are no classes": (lambda a: {**a, "labels": a["labels"] + 10**9}, "goes up to 1,000,"),
    "labels that are no integers": (lambda a: {**a, "labels": a["labels"] / 2}, "labels is float64"),
    "pickled objects": (lambda a: {**a, "labels": a["labels"].astype(object)}, "unreadable .*pickle"),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG_ARRAYS)
def test_arrays_that_are_not_as_they_should_be_are_refused(
    how: str, digits: dict[str, Any], tmp_path: Path
) -> None:
    change, says = WRONG_ARRAYS[how]
    np.savez(tmp_path / "train.npz", **change(digits))
    with pytest.raises(DataError, match=rf"train\.npz: .*{says}"):
        arrays(tmp_path).read()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_array_file_is_refused(share: float, digits: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    np.savez(path, **digits)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"not a complete \.npz file"):
        arrays(tmp_path).read()


def test_a_flipped_bit_in_an_array_file_is_found(digits: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    np.savez(path, **digits)
    content = bytearray(path.read_bytes())
    content[1000] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        arrays(tmp_path).read()


def test_labels_in_one_of_the_two_files_are_refused(digits: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **digits)
    np.savez(tmp_path / "test.npz", images=digits["images"])
    with pytest.raises(DataError, match=r"test\.npz: no array labels, though train\.npz has one"):
        arrays(tmp_path).read()


def test_missing_arrays_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.npz: no such file\. .*data\.root"):
        arrays(tmp_path).read()


def test_unlabelled_arrays_train_a_basic_autoencoder(
    digits: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "train.npz", pixels=digits["images"])
    status, said = command(
        "data=arrays", f"data.root={tmp_path}", "data.x=pixels", "data.shape=[3,4,5]", "variant=basic",
        "schedule.epochs=1", *TINY,
    )  # fmt: skip
    assert (status, said) == (0, "")


def test_an_unknown_class_of_a_folder_of_data_sets_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean Pictures\? Allowed: .*MNIST"):
        Builder()({"_target_": "aae_runner.datasets.Picture"}, "data")
