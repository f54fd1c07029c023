"""SVHN: its files, their checks, its layout."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from conftest import DAMAGES, spoilt
from torchvision.datasets import SVHN as OfficialSVHN  # noqa: N811

from aae_runner.datasets import SVHN
from aae_runner.datasets.files import shuffled
from aae_runner.datasets.svhn import MD5 as SVHN_MD5
from aae_runner.errors import DataError


def test_svhn_is_read_from_its_layout_with_0_for_the_digit_0(svhn_root: Path) -> None:
    splits = SVHN(root=str(svhn_root), download=False, checksums=False, extra=False).read()
    assert [len(split) for split in splits[:3]] == [180, 20, 50]
    assert "not the official SVHN" in splits.note
    original = scipy.io.loadmat(svhn_root / "test_32x32.mat")
    assert torch.equal(splits.test.y, torch.from_numpy(original["y"].reshape(-1) % 10).long())
    assert torch.equal(splits.test.x[7, 2], torch.from_numpy(original["X"][:, :, 2, 7]))


def test_svhn_with_its_extra_part_holds_the_pictures_and_labels_of_the_files(svhn_root: Path) -> None:
    """Compressed or not, and in the same order as if the parts had been one file."""
    train = scipy.io.loadmat(svhn_root / "train_32x32.mat")
    extra = {name: train[name][..., ::-1] if name == "X" else train[name][::-1] for name in ("X", "y")}
    scipy.io.savemat(svhn_root / "extra_32x32.mat", extra, do_compression=True)
    splits = SVHN(root=str(svhn_root), download=False, checksums=False, extra=True).read()
    x = np.concatenate([train["X"], extra["X"]], axis=3).transpose(3, 2, 0, 1)
    y = np.concatenate([train["y"], extra["y"]]).reshape(-1) % 10
    order = shuffled(400)
    assert [len(split) for split in splits[:2]] == [360, 40]
    assert np.array_equal(torch.cat([splits.valid.x, splits.train.x]).numpy(), x[order])
    assert np.array_equal(torch.cat([splits.valid.y, splits.train.y]).numpy(), y[order])


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_compressed_svhn_file_that_ends_too_early_is_named(svhn_root: Path, share: float) -> None:
    path = svhn_root / "train_32x32.mat"
    content = scipy.io.loadmat(path)
    scipy.io.savemat(path, {"y": content["y"], "X": content["X"]}, do_compression=True)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"train_32x32\.mat: damaged or unreadable"):
        SVHN(root=str(svhn_root), download=False, checksums=False, extra=False).read()


@pytest.mark.parametrize("kept", [150, 200])
def test_svhn_with_more_labels_than_pictures_or_fewer_is_named(svhn_root: Path, kept: int) -> None:
    path = svhn_root / "train_32x32.mat"
    content = scipy.io.loadmat(path)
    scipy.io.savemat(path, {"X": content["X"][..., :kept], "y": content["y"][: 350 - kept]})
    with pytest.raises(DataError, match=f"it holds {kept} pictures and {350 - kept} labels"):
        SVHN(root=str(svhn_root), download=False, checksums=False, extra=False).read()


def test_svhn_checksums_are_those_of_torchvision() -> None:
    official = {name: md5 for _, name, md5 in OfficialSVHN.split_list.values()}
    assert official == SVHN_MD5


@pytest.mark.parametrize("how", [*DAMAGES, "swapped"])
def test_a_damaged_svhn_file_is_named(svhn_root: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in svhn_root.iterdir():
        monkeypatch.setitem(SVHN_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    path = svhn_root / "train_32x32.mat"
    other = path.with_name("test_32x32.mat")
    path.write_bytes(other.read_bytes() if how == "swapped" else spoilt(path.read_bytes(), how))
    with pytest.raises(DataError, match=r"train_32x32\.mat: its content has MD5"):
        SVHN(root=str(svhn_root), download=False, checksums=True, extra=False).read()
