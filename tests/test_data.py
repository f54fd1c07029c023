"""Reading, splitting, hiding labels, drawing minibatches."""

import functools
import gzip
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import scipy.io
import torch
from conftest import Command, composed, experiment, idx
from torchvision.datasets import MNIST as OfficialMNIST  # noqa: N811
from torchvision.datasets import SVHN as OfficialSVHN  # noqa: N811
from torchvision.datasets import FashionMNIST as OfficialFashion

from aae_runner.config import Facts
from aae_runner.data import Corruption, Data, Images, Sampler, Splits, derive_seed, labelled_subset
from aae_runner.datasets import MNIST, SVHN, Digits, FashionMNIST
from aae_runner.datasets.idx import FASHION_MD5
from aae_runner.datasets.svhn import MD5 as SVHN_MD5
from aae_runner.errors import DataError


def test_digits_are_split_without_overlap_and_the_same_for_every_seed() -> None:
    splits = Digits().read()
    assert [len(split) for split in splits[:3]] == [1000, 297, 500]
    assert int(splits.train.x.max()) == 255
    pictures = torch.cat([split.x for split in splits[:3]]).flatten(1)
    assert len(pictures.unique(dim=0)) == 1797  # no picture stands in two splits
    first, second = experiment("seed=0").data, experiment("seed=1").data
    assert torch.equal(first.test.x, second.test.x)
    assert not torch.equal(first.labelled.x, second.labelled.x)


@pytest.mark.parametrize("labels", [10, 100, 103, 7, 1000])
def test_the_labelled_subset_is_as_balanced_as_the_number_divides(labels: int) -> None:
    y = torch.arange(5000) % 10
    chosen = labelled_subset(y, 10, labels, seed=3)
    assert len(chosen.unique()) == labels
    counts = torch.bincount(y[chosen], minlength=10)
    assert int(counts.max() - counts.min()) <= 1


def test_a_rare_class_gives_all_it_has_to_the_labelled_subset() -> None:
    y = torch.cat([torch.zeros(3), torch.ones(97)]).long()
    counts = torch.bincount(y[labelled_subset(y, 2, 40, seed=0)])
    assert counts.tolist() == [3, 37]


def test_the_label_seed_alone_decides_the_labelled_subset_where_it_is_set() -> None:
    one, other = (
        experiment("seed=0", "data.label_seed=5").data,
        experiment("seed=1", "data.label_seed=5").data,
    )
    assert torch.equal(one.labelled.x, other.labelled.x)


def test_labelled_images_come_from_the_training_split_and_the_others_hide_their_label() -> None:
    data = experiment("data.labels=30", "schedule.batch=1000").data
    train = {bytes(x.numpy().tobytes()) for x in data.train.x}
    assert all(bytes(x.numpy().tobytes()) in train for x in data.labelled.x)
    batch = data.draw("all", 0)
    assert int((batch.y != data.facts.classes).sum()) == 30


def test_with_all_labels_every_image_is_in_both_streams() -> None:
    data = experiment("data.labels=all", "schedule.batch=1000").data
    assert len(data.labelled) == len(data.train)
    assert len(data.draw("all", 0).x) == 1000


def test_every_pass_of_the_sampler_draws_each_image_once() -> None:
    sampler = Sampler(n=103, batch=20, seed=0)
    drawn = torch.cat([sampler.indices(step) for step in range(103)])  # 20 whole passes
    for one_pass in drawn.view(20, 103):
        assert len(one_pass.unique()) == 103
    assert not torch.equal(drawn[:103], drawn[103:206])


def test_the_sampler_is_a_function_of_the_step_alone() -> None:
    straight, jumping = Sampler(103, 20, seed=1), Sampler(103, 20, seed=1)
    expected = [straight.indices(step) for step in range(30)]
    for step in (29, 4, 11, 5):
        assert torch.equal(jumping.indices(step), expected[step])


def test_an_epoch_is_a_pass_over_the_training_split_not_over_the_labels() -> None:
    assert experiment("data.labels=10", "schedule.batch=100").data.steps_per_epoch == 10


def test_corruption_never_touches_the_reconstruction_target() -> None:
    data = experiment("network.corruption.noise=0.5", "network.corruption.dropout=0.3").data
    batch = data.draw("all", 0)
    clean = {bytes((255 * x).round().byte().numpy().tobytes()) for x in batch.x}
    assert clean <= {bytes(x.numpy().tobytes()) for x in data.train.x}
    assert not torch.equal(batch.x, batch.x_in)


def test_corruption_has_the_stated_strength() -> None:
    torch.manual_seed(0)
    x = torch.full((100, 1, 50, 50), 0.5)
    noisy = Corruption(noise=0.3, dropout=0.0)(x)
    assert float((noisy - x).std()) == pytest.approx(0.3, rel=0.01)
    dropped = Corruption(noise=0.0, dropout=0.2)(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, rel=0.02)
    assert set(dropped.unique().tolist()) == {0.0, 0.5}


def test_seeds_derived_from_different_parts_differ() -> None:
    seeds = {
        derive_seed(role, seed, step) for role in ("step", "pass") for seed in range(20) for step in range(50)
    }
    assert len(seeds) == 2 * 20 * 50


def test_mnist_is_read_packed_and_unpacked_and_split_50_000_to_the_rest(mnist_root: Path) -> None:
    packed = MNIST(root=str(mnist_root), download=False, checksums=False).read()
    for file in (mnist_root / "MNIST" / "raw").glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    unpacked = MNIST(root=str(mnist_root), download=False, checksums=False).read()
    assert [len(split) for split in packed[:3]] == [50_000, 10, 20]
    assert torch.equal(packed.train.y, torch.arange(50_000) % 10)
    assert all(torch.equal(one.x, other.x) for one, other in zip(packed[:3], unpacked[:3], strict=True))


@pytest.mark.parametrize(("ours", "official"), [(MNIST, OfficialMNIST), (FashionMNIST, OfficialFashion)])
def test_missing_idx_files_are_downloaded_and_found_again(
    ours: type[MNIST], official: Any, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = mnist_root / "MNIST" / "raw"
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in mirror.glob("*.gz")]
    serve = functools.partial(SimpleHTTPRequestHandler, directory=str(mirror))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(official, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(official, "resources", resources)
        ours(root=str(tmp_path / "cache"), download=True, checksums=False).read()
        server.shutdown()
    again = ours(root=str(tmp_path / "cache"), download=True, checksums=False).read()
    assert len(again.train) == 50_000


def spoilt(content: bytes, how: str) -> bytes:
    if how == "flipped":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    share = {"empty": 0.0, "cut": 0.5, "short": 0.999}[how]
    return content[: int(len(content) * share)]


@pytest.mark.parametrize("how", ["flipped", "empty", "cut", "short"])
@pytest.mark.parametrize("checksums", [True, False])
def test_a_damaged_mnist_file_is_named_with_both_remedies(
    mnist_root: Path, how: str, checksums: bool
) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoilt(path.read_bytes(), how))
    with pytest.raises(DataError) as caught:
        MNIST(root=str(mnist_root), download=False, checksums=checksums).read()
    for part in (str(path), "data.download=true", "put the original"):
        assert part in str(caught.value)


def test_content_that_is_not_the_official_mnist_is_refused_by_its_checksum(mnist_root: Path) -> None:
    with pytest.raises(DataError, match=r"SHA-256.*expected"):
        MNIST(root=str(mnist_root), download=False, checksums=True).read()


def test_fashion_mnist_is_known_by_the_checksums_of_its_packed_files(
    mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {f"{name}.gz": md5 for name, md5 in FASHION_MD5.items()} == dict(OfficialFashion.resources)
    (mnist_root / "MNIST").rename(mnist_root / "FashionMNIST")
    fashion = FashionMNIST(root=str(mnist_root), download=False, checksums=True)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: it has MD5 .*, expected 8d4fb7e6"):
        fashion.read()
    for path in (mnist_root / "FashionMNIST" / "raw").glob("*.gz"):
        monkeypatch.setitem(FASHION_MD5, path.stem, hashlib.md5(path.read_bytes()).hexdigest())
        path.with_suffix("").write_bytes(b"an unpacked file beside a packed one is not read")
    splits = fashion.read()
    assert [len(split) for split in splits[:3]] == [50_000, 10, 20]
    assert splits.note == ""


def test_an_unpacked_fashion_mnist_alone_cannot_be_checked_and_is_refused_or_noted(mnist_root: Path) -> None:
    (mnist_root / "MNIST").rename(mnist_root / "FashionMNIST")
    for path in (mnist_root / "FashionMNIST" / "raw").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    with pytest.raises(DataError, match=r"cannot be checked.* put the original .*gz .*data\.checksums=false"):
        FashionMNIST(root=str(mnist_root), download=False, checksums=True).read()
    splits = FashionMNIST(root=str(mnist_root), download=False, checksums=False).read()
    assert splits.note == "not checked to be the official FashionMNIST"


def test_a_file_that_is_not_idx_is_refused_without_checksums_too(mnist_root: Path) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(DataError, match="not a complete idx file"):
        MNIST(root=str(mnist_root), download=False, checksums=False).read()


def test_missing_data_end_with_status_3_and_leave_nothing(command: Command, tmp_path: Path) -> None:
    status, said = command("data=mnist", f"data.root={tmp_path}/nowhere", "data.download=false")
    assert status == 3
    assert "nowhere/MNIST/raw/train-images-idx3-ubyte.gz: no such file" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_svhn_is_read_from_its_layout_with_0_for_the_digit_0(svhn_root: Path) -> None:
    splits = SVHN(root=str(svhn_root), download=False, checksums=False, extra=False).read()
    assert [len(split) for split in splits[:3]] == [180, 20, 50]
    assert "not the official SVHN" in splits.note
    original = scipy.io.loadmat(svhn_root / "test_32x32.mat")
    assert torch.equal(splits.test.y, torch.from_numpy(original["y"].reshape(-1) % 10).long())
    assert torch.equal(splits.test.x[7, 2], torch.from_numpy(original["X"][:, :, 2, 7]))


def test_svhn_checksums_are_those_of_torchvision() -> None:
    official = {name: md5 for _, name, md5 in OfficialSVHN.split_list.values()}
    assert official == SVHN_MD5


@pytest.mark.parametrize("how", ["flipped", "empty", "cut"])
def test_a_damaged_svhn_file_is_named(svhn_root: Path, how: str) -> None:
    path = svhn_root / "train_32x32.mat"
    path.write_bytes(spoilt(path.read_bytes(), how))
    with pytest.raises(DataError, match=r"train_32x32\.mat"):
        SVHN(root=str(svhn_root), download=False, checksums=how == "flipped", extra=False).read()


@pytest.mark.parametrize(
    ("shape", "classes", "says"), [([1, 9, 9], 10, r"data\.shape"), ([1, 8, 8], 5, r"data\.classes=5")]
)
def test_a_yaml_that_contradicts_the_tensors_is_refused(shape: list[int], classes: int, says: str) -> None:
    facts = Facts(shape=shape, classes=classes, labels=10, label_seed=None)
    with pytest.raises(DataError, match=says):
        Data(Digits().read(), facts, seed=0, batch=10, corrupt=lambda x: x, device=torch.device("cpu"))


def test_the_fingerprint_tells_data_apart() -> None:
    def fingerprint(last: int) -> str:
        images = Images(torch.zeros(20, 1, 1, 1, dtype=torch.uint8), torch.arange(20) % 10)
        images.x[-1] = last
        facts = Facts(shape=[1, 1, 1], classes=10, labels=10, label_seed=None)
        data = Data(Splits(images, images, images), facts, seed=0, batch=5, corrupt=lambda x: x,
                    device=torch.device("cpu"))  # fmt: skip
        return data.fingerprint

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


def test_the_config_of_mnist_points_where_torchvision_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAE_DATA", "/some/where")
    assert composed("data=mnist").data["root"] == "/some/where"
    monkeypatch.delenv("AAE_DATA")
    assert composed("data=mnist").data["root"] == "~/.cache/aae-runner"


def test_idx_files_of_this_suite_are_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets.mnist import read_image_file

    array = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    (tmp_path / "file").write_bytes(idx(array.numpy()))
    assert torch.equal(read_image_file(str(tmp_path / "file")), array)
