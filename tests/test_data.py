"""Reading, splitting, hiding labels, drawing minibatches."""

import contextlib
import functools
import gzip
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import DAMAGES, Command, composed, experiment, idx, spoilt
from torchvision.datasets import MNIST as OfficialMNIST  # noqa: N811
from torchvision.datasets import FashionMNIST as OfficialFashion

from aae_runner.config import Facts
from aae_runner.data import Corruption, Data, Images, Sampler, Splits, derive_seed, labelled_subset
from aae_runner.datasets import MNIST, SVHN, Digits, FashionMNIST
from aae_runner.datasets.files import fetch
from aae_runner.datasets.idx import FASHION_MD5, MNIST_SHA256
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


def test_the_validation_images_are_learned_from_where_that_is_asked_and_this_is_said() -> None:
    apart, learned = experiment().data, experiment("data.train_on=train+valid", "data.labels=all").data
    n = len(apart.train)
    assert torch.equal(learned.train.x[:n], apart.train.x)
    assert torch.equal(learned.train.x[n:], apart.valid.x)
    assert torch.equal(learned.labelled.y[n:], apart.valid.y)
    assert torch.equal(learned.valid.x, apart.valid.x)
    assert learned.steps_per_epoch > apart.steps_per_epoch
    assert "data.train_on=train+valid" in learned.note
    assert apart.note == ""


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
    assert batch.x_in.shape == (1, *batch.x.shape)
    assert not torch.equal(batch.x, batch.x_in[0])


def test_every_copy_of_an_image_is_corrupted_anew() -> None:
    copies = Corruption(noise=0.3, dropout=0.2, draws=3)(torch.full((100, 1, 50, 50), 0.5))
    assert copies.shape == (3, 100, 1, 50, 50)
    kept = copies[:, (copies != 0).all(0)]  # shared by all copies: what is left of them is noise
    assert float(torch.corrcoef(kept)[0, 1]) == pytest.approx(0, abs=0.01)
    assert float((copies == 0).all(0).float().mean()) == pytest.approx(0.2**3, rel=0.1)


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


@contextlib.contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on this machine; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def files_of(folder: Path) -> Callable[..., BaseHTTPRequestHandler]:
    return functools.partial(SimpleHTTPRequestHandler, directory=str(folder))


@pytest.fixture
def official(mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of small files that pass for the official MNIST, which is served too."""
    folder = mnist_root / "MNIST" / "raw"
    mirror = mnist_root / "mirror"
    shutil.copytree(folder, mirror)
    packed = {path.name: path.read_bytes() for path in mirror.iterdir()}
    for name, content in packed.items():
        digest = hashlib.sha256(gzip.decompress(content)).hexdigest()
        monkeypatch.setitem(MNIST_SHA256, name.removesuffix(".gz"), digest)
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in packed.items()]
    with served(files_of(mirror)) as address:
        for one in (OfficialMNIST, OfficialFashion):
            monkeypatch.setattr(one, "mirrors", [address])
            monkeypatch.setattr(one, "resources", sums)
        yield folder


@pytest.mark.parametrize("ours", [MNIST, FashionMNIST])
def test_missing_idx_files_are_downloaded_and_found_again(
    ours: type[MNIST], official: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache")
    ours(root=cache, download=True, checksums=False).read()
    again = ours(root=cache, download=False, checksums=False).read()
    assert len(again.train) == 50_000


def test_of_two_jobs_that_download_a_file_the_second_leaves_that_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_bytes(b"sound")
    (tmp_path / "x").write_bytes(b"spoilt")
    with served(files_of(tmp_path / "mirror")) as address:
        for _ in range(2):
            fetch([f"{address}x"], tmp_path / "x", hashlib.md5(b"sound").hexdigest())
    assert (tmp_path / "x").read_bytes() == b"sound"
    assert (tmp_path / "x.damaged").read_bytes() == b"spoilt"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_mnist_file_is_named_with_both_remedies_or_fetched_again(
    official: Path, name: str, how: str
) -> None:
    path = official / name
    if not path.suffix:
        packed = path.with_name(f"{name}.gz")
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    damaged = spoilt(path.read_bytes(), how)
    path.write_bytes(damaged)
    root = str(official.parents[1])
    with pytest.raises(DataError) as caught:
        MNIST(root=root, download=False, checksums=True).read()
    for part in (str(path), "data.download=true", "Put the original"):
        assert part in str(caught.value)
    splits = MNIST(root=root, download=True, checksums=True).read()
    assert torch.equal(splits.train.y, torch.arange(50_000) % 10)
    kept = path if not path.suffix else path.with_name(f"{name}.damaged")
    assert kept.read_bytes() == damaged  # nothing of the user's is thrown away
    assert not list(official.glob(".*"))


def test_files_of_training_and_test_that_changed_places_are_noticed(official: Path) -> None:
    one, other = (official / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: its content has SHA-256"):
        MNIST(root=str(official.parents[1]), download=False, checksums=True).read()


class Broken(BaseHTTPRequestHandler):
    """Promises more than it sends, and where told, sends nothing at all."""

    silent = False

    def do_GET(self) -> None:
        if self.silent:
            self.connection.recv(1)  # until the other side gives up
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half of it")


class Silent(Broken):
    silent = True


@pytest.mark.parametrize("handler", [Broken, Silent])
def test_a_download_that_breaks_off_or_hangs_is_told_and_leaves_nothing(
    handler: type[Broken], official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aae_runner.datasets.files.SILENCE", 0.2)
    with served(handler) as address:
        monkeypatch.setattr(OfficialMNIST, "mirrors", [address])
        with pytest.raises(DataError, match=r"no such file\. It could not be downloaded.*Put the") as caught:
            MNIST(root=str(tmp_path / "cache"), download=True, checksums=True).read()
    assert "fetch" not in str(caught.value)  # which has just failed
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


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
    with pytest.raises(DataError, match=r"cannot be checked.* Put the original .*gz .*data\.checksums=false"):
        FashionMNIST(root=str(mnist_root), download=False, checksums=True).read()
    splits = FashionMNIST(root=str(mnist_root), download=False, checksums=False).read()
    assert splits.note == "not checked to be the official FashionMNIST"


def test_a_file_that_is_not_idx_is_refused_without_checksums_too(mnist_root: Path) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    for content in (b"<html>not found</html>", *(whole[:length] for length in (*range(12), len(whole) - 1))):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match="not a complete idx file"):
            MNIST(root=str(mnist_root), download=False, checksums=False).read()


def test_missing_data_end_with_status_3_and_leave_nothing(command: Command, tmp_path: Path) -> None:
    status, said = command("data=mnist", f"data.root={tmp_path}/nowhere", "data.download=false")
    assert status == 3
    assert "nowhere/MNIST/raw/train-images-idx3-ubyte.gz: no such file" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["cut 0", "cut 10", "cut 50", "cut 99.9"])
def test_an_incomplete_file_is_noticed_without_checksums_too(
    svhn_root: Path, mnist_root: Path, how: str
) -> None:
    numbers, digits = svhn_root / "train_32x32.mat", mnist_root / "MNIST/raw/train-images-idx3-ubyte.gz"
    for path in (numbers, digits):
        path.write_bytes(spoilt(path.read_bytes(), how))
    with pytest.raises(DataError, match=r"train_32x32\.mat"):
        SVHN(root=str(svhn_root), download=False, checksums=False, extra=False).read()
    with pytest.raises(DataError, match=r"train-images"):
        MNIST(root=str(mnist_root), download=False, checksums=False).read()


@pytest.mark.parametrize(
    ("shape", "classes", "says"), [([1, 9, 9], 10, r"data\.shape"), ([1, 8, 8], 5, r"data\.classes=5")]
)
def test_a_yaml_that_contradicts_the_tensors_is_refused(shape: list[int], classes: int, says: str) -> None:
    facts = Facts(shape=shape, classes=classes, labels=10, label_seed=None)
    with pytest.raises(DataError, match=says):
        Data(Digits().read(), facts, seed=0, batch=10, corrupt=lambda x: x, device=torch.device("cpu"))


def test_a_split_without_enough_images_to_measure_anything_is_refused() -> None:
    one = Images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    facts = Facts(shape=[1, 4, 4], classes=2, labels="all", label_seed=None)
    many = Images(one.x.expand(9, -1, -1, -1), one.y.expand(9))
    with pytest.raises(DataError, match="the test split has 1 image; at least 2"):
        Data(
            Splits(many, many, one),
            facts,
            seed=0,
            batch=3,
            corrupt=lambda x: x[None],
            device=torch.device("cpu"),
        )


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
