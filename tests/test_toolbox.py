"""The commands of `aae` on finished runs and on data sets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import Run, Toolbox
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray
from PIL import Image

import aae_runner
from aae_runner import gallery, toolbox
from aae_runner.config import choices
from aae_runner.data import normalize
from aae_runner.errors import ConfigError

COMMANDS = ("report", "compare", "agree", "evaluate", "sample", "traverse", "encode", "export", "data")


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tile(figure: Figure, row: int, column: int) -> NDArray[np.float64]:
    """One picture of a table of digits, (8, 8)."""
    canvas = figure.axes[0].images[0].get_array()
    assert canvas is not None
    return np.asarray(canvas)[9 * row + 1 : 9 * row + 9, 9 * column + 1 : 9 * column + 9]


def test_importing_the_package_waits_for_neither_torch_nor_hydra() -> None:
    code = "import sys, aae_runner; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = aae_runner.opened


def test_help_names_every_command_and_each_has_its_own(aae: Toolbox) -> None:
    status, said = aae("--help")
    assert status == 0
    for name in COMMANDS:
        assert f"    {name} " in said
        status, own = aae(name, "--help")
        assert status == 0
        assert len(own.splitlines()) < 30


@pytest.mark.parametrize("variant", ["semi_supervised", "basic", "vae"])
def test_evaluating_again_gives_the_numbers_of_results_json(run: Run, aae: Toolbox, variant: str) -> None:
    opened = run(variant)
    stored = {tag.removeprefix("test/"): value for tag, value in opened.results.items() if tag[:5] == "test/"}
    found = opened.evaluate()
    assert {name: value for name, value in found.items() if isinstance(value, float)} == stored
    status, said = aae("evaluate", opened.folder)
    assert status == 0
    assert f"{stored['reconstruction_error']:.4g}" in said
    assert [line.split()[0].removeprefix("test/") for line in said.splitlines() if "test/" in line] == [
        *stored
    ]


def test_one_metric_on_the_validation_split_is_that_of_the_last_epoch(run: Run, aae: Toolbox) -> None:
    opened = run("semi_supervised")
    status, said = aae("evaluate", opened.folder, "--split", "valid", "--metric", "error_rate")
    rate = opened.metrics["valid/error_rate"].values[-1]
    assert (status, said.split()[-3:]) == (0, ["valid/error_rate", f"{100 * rate:.2f}", "%"])
    status, said = aae("evaluate", opened.folder, "--metric", "error")
    assert (status, "Did you mean error_rate?" in said) == (2, True)
    with pytest.raises(ConfigError, match="no split nosuch"):
        opened.evaluate("nosuch")


def test_a_finished_run_is_looked_at_in_another_way_where_asked(run: Run, aae: Toolbox) -> None:
    folder = run("basic").folder
    parzen = (
        "evaluators.parzen._target_=aae_runner.evaluators.LogLikelihood",
        "evaluators.parzen.every=null",
    )

    def estimate(samples: int) -> float:
        asked = (*parzen, f"evaluators.parzen.samples={samples}", "--metric", "log_likelihood")
        return float(aae("evaluate", folder, *asked)[1].split()[-1])

    assert estimate(2000) > estimate(20)  # it rises with their number
    assert aae("evaluate", folder, "evaluators.reconstructions.count=0")[0] == 2
    status, said = aae("evaluate", folder, "--split", "valid", "evaluators.reconstructions=null")
    assert (status, "reconstruction_error" in said) == (0, False)
    status, said = aae("evaluate", folder, "evaluators.reconstruction=null")
    assert (status, "Did you mean reconstructions?" in said) == (2, True)


def test_samples_fill_a_square_and_the_seed_decides_them(run: Run, aae: Toolbox, tmp_path: Path) -> None:
    figure = gallery.samples(run("semi_supervised"), 5, 3)
    assert (tile(figure, 1, 1) < 1).any()
    assert (tile(figure, 1, 2) == 1).all()
    folder = run("semi_supervised").folder
    pictures = [tmp_path / f"{name}.png" for name in ("one", "same", "other")]
    for picture, seed in zip(pictures, ("0", "0", "1"), strict=True):
        assert aae("sample", folder, "-n", "4", "--class", "3", "--seed", seed, "-o", picture)[0] == 0
    one, same, other = (imread(picture) for picture in pictures)
    assert (one == same).all()
    assert not (one == other).all()


def test_a_walk_varies_one_dimension_a_row_about_a_common_center(
    run: Run, aae: Toolbox, tmp_path: Path
) -> None:
    figure = gallery.walk(run("semi_supervised"), None, 5)
    center = tile(figure, 0, 2)
    for row in range(10):
        np.testing.assert_allclose(tile(figure, row, 2), center, atol=1e-6)
        assert not np.allclose(tile(figure, row, 0), tile(figure, row, 4), atol=1e-4)
    assert len(gallery.walk(run("supervised"), 3, 2).axes[0].get_yticks()) == 10  # of 15
    assert len(gallery.walk(run("basic"), None, 2).axes[0].get_yticks()) == 2
    assert aae("traverse", run("basic").folder, "-o", tmp_path / "walk.png")[0] == 0
    assert imread(tmp_path / "walk.png").ndim == 3


@pytest.mark.parametrize("variant", ["semi_supervised", "supervised"])
def test_between_two_images_lies_the_line_of_their_codes(run: Run, variant: str) -> None:
    opened = run(variant)
    figure = gallery.between(opened, (3, 7), 4)
    snapshot = opened.snapshot("test")
    decoded = opened.decode({name: value[[3, 7]] for name, value in snapshot.values.items()})
    shown = torch.cat([normalize(snapshot.images.x[[3, 7]]), decoded])[:, 0]
    for column, expected in zip((0, 5, 1, 4), shown, strict=True):
        np.testing.assert_allclose(tile(figure, 0, column), expected, atol=1e-5)


def test_a_folder_of_pictures_is_encoded_as_its_pixels_are(run: Run, aae: Toolbox, tmp_path: Path) -> None:
    opened = run("semi_supervised")
    x = opened.data.test.x[:3]
    for path, pixels in zip(("a.png", "b/c/d.png", "e.png"), x, strict=True):
        (tmp_path / "own" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(tmp_path / "own" / path)
    (tmp_path / "own" / "notes.txt").write_text("no picture")
    status, said = aae("encode", opened.folder, tmp_path / "own", "-o", tmp_path / "codes.npz")
    assert status == 0, said
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as codes:
        assert codes["paths"].tolist() == ["a.png", "b/c/d.png", "e.png"]
        for name, expected in opened.encode(x).items():
            np.testing.assert_allclose(codes[name], expected, rtol=1e-5, atol=1e-6)
    assert "another size" not in said
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "own" / "larger.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "own" / "red.png")
    status, said = aae("encode", opened.folder, tmp_path / "own", "-o", tmp_path / "codes.npz")
    assert (status, said.count("another size")) == (0, 1)
    assert "2 of 5 pictures had another size or color" in said
    (tmp_path / "own" / "a.png").write_bytes(b"torn")
    status, said = aae("encode", opened.folder, tmp_path / "own", "-o", tmp_path / "more.npz")
    assert (status, "a.png: damaged" in said) == (3, True)
    assert not (tmp_path / "more.npz").exists()


@pytest.mark.parametrize("variant", ["semi_supervised", "supervised", "vae"])
def test_exported_programs_give_the_same_numbers_for_any_number_of_images(
    run: Run, aae: Toolbox, tmp_path: Path, variant: str
) -> None:
    opened = run(variant)
    assert aae("export", opened.folder, "-o", tmp_path / "net.pt2")[0] == 0
    encoder, decoder = (
        torch.export.load(tmp_path / f"net.{part}.pt2").module() for part in ("encoder", "decoder")
    )
    for n in (1, 7):
        x = normalize(opened.data.test.x[:n])
        codes = encoder(x)
        assert codes.keys() == opened.encode(x).keys()
        for name, expected in opened.encode(x).items():
            torch.testing.assert_close(codes[name], expected)
        values = opened.draw(n)
        torch.testing.assert_close(decoder(values), opened.decode(values))


def test_exported_weights_are_the_runs(run: Run, aae: Toolbox, tmp_path: Path) -> None:
    opened, file = run("baseline"), tmp_path / "weights.safetensors"
    assert aae("export", opened.folder, "--format", "safetensors", "-o", file)[0] == 0
    exported = safetensors.torch.load_file(file)
    assert exported.keys() == opened.model.state_dict().keys()
    assert aae("export", opened.folder, "--format", "safetensors", "-o", tmp_path / "bare")[0] == 0
    assert (tmp_path / "bare.safetensors").read_bytes() == file.read_bytes()
    assert aae("export", opened.folder, "-o", tmp_path / "net")[0] == 0
    assert sorted(path.name for path in tmp_path.glob("net*")) == ["net.encoder.pt2"]  # it decodes nothing


@pytest.mark.parametrize(("ending", "beginning"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_picture_is_what_its_ending_says(
    run: Run, aae: Toolbox, tmp_path: Path, ending: str, beginning: bytes
) -> None:
    file = tmp_path / f"samples.{ending}"
    assert aae("sample", run("semi_supervised").folder, "-n", "4", "-o", file)[0] == 0
    assert file.read_bytes().startswith(beginning)


def test_the_version_goes_where_output_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aae", "--version"])
    with pytest.raises(SystemExit) as ended:
        toolbox.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out.startswith(f"aae-runner {aae_runner.__version__}, torch ")
    assert "1 threads" not in said.out


def test_a_place_that_cannot_be_written_is_named_with_its_cause_and_no_free_space(
    run: Run, aae: Toolbox
) -> None:
    for arguments in (
        ("sample", run("semi_supervised").folder, "-n", "1", "-o", "/dev/null/x.png"),
        ("data", "fetch", "mnist", "--root", "/dev/null/x"),
        ("data", "fetch", "svhn", "--root", "/dev/null/x"),
    ):
        status, said = aae(*arguments)
        assert (status, "cannot be written (/dev/null is no folder)" in said) == (6, True), said
        assert "free" not in said
        assert "downloaded (" not in said


def test_every_data_set_is_listed_with_its_first_comment_and_its_place(aae: Toolbox, tmp_path: Path) -> None:
    status, said = aae("data", "list", "--root", tmp_path)
    assert status == 0
    for name, text in choices("data").items():
        assert f"{name:<14} {text}\n" in said
    assert said.count(str(tmp_path)) == said.count("\n") - len(choices("data"))


def test_verifying_reads_with_checksums_and_fetching_leaves_alone_what_is_sound(
    aae: Toolbox, mnist_root: Path
) -> None:
    small = "data.checksums=false", "data.shape=[1,1,1]"
    for action in ("verify", "fetch"):
        status, said = aae("data", action, "mnist", *small, "--root", mnist_root)
        assert (status, "mnist: OK, 50,000 training, 10 validation, 20 test images of 1x1x1" in said) == (
            0,
            True,
        )
    status, said = aae("data", "verify", "mnist", "--root", mnist_root)
    assert (status, "SHA-256" in said, "`aae data fetch`" in said) == (3, True, True)
    assert aae("data", "verify", "digits")[0] == 0
    assert aae("data", "verify", "svhn", "--root", mnist_root)[0] == 3
    status, said = aae("data", "verify", "digits", "data.classes=5")
    assert (status, "data.classes=5 allows 0 to 4" in said) == (3, True)
    for name, remedy in (
        ("digits", "comes with the program"),
        ("images", "Put its files into"),
        ("mist", "mnist"),
    ):
        status, said = aae("data", "fetch", name, "--root", mnist_root)
        assert (status, remedy in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "ended"),
    [
        (("sample", "nowhere"), (2, "no finished run")),
        (("sample", "RUN", "--class", "10"), (2, "Allowed: 0 to 9")),
        (("sample", "RUN", "-n", "0"), (2, "allowed are 1 to 10,000")),
        (("sample", "RUN", "-o", "file/samples.png"), (6, "cannot be written")),
        (("sample", "BASELINE"), (2, "no prior")),
        (("traverse", "RUN", "--between", "0", "500"), (2, "Allowed: 0 to 499")),
        (("traverse", "RUN", "--between", "-1", "0"), (2, "Allowed: 0 to 499")),
        (("traverse", "RUN", "--between", "3", "3"), (2, "two different images")),
        (("traverse", "RUN", "--class", "1", "--between", "1", "0"), (2, "not allowed with")),
        (("traverse", "BASELINE"), (2, "no head style")),
        (("compare", "BASELINE", "BASELINE"), (2, "no head style")),
        (("compare", "SUPERVISED", "SUPERVISED"), (2, "15 dimensions; 2 can be drawn")),
        (("encode", "RUN", "nowhere"), (3, "no such folder")),
        (("export", "RUN", "-o", "file/net"), (6, "cannot be written")),
        (("export", "RUN", "-o", "."), (2, "a name that ends in .pt2")),
        (("export", "RUN", "-o", "net.foo"), (2, "a name that ends in .pt2")),
        (("export", "RUN", "-o", "net.pt2", "--format", "safetensors"), (2, "ends in .safetensors")),
        (("sample", "RUN", "-o", "x.foo"), (2, "x.foo: a name that ends in .png")),
        (("traverse", "RUN", "-o", "x"), (2, "x: a name that ends in .png")),
        (("compare", "RUN", "RUN", "--sampled"), (2, "none of these has a Gaussian q(z|x)")),
        (("compare", "RUN", "RUN", "-o", "x.npz"), (2, "x.npz: a name that ends in .png")),
        (("encode", "RUN", "file", "-o", "x.csv"), (2, "x.csv: a name that ends in .npz")),
        (("smaple", "RUN"), (2, "there is no smaple. Did you mean sample?")),
        (("data", "fech", "mnist"), (2, "there is no fech. Did you mean fetch?")),
        (("sample", "RUN", "--sede=3"), (2, "there is no --sede. Did you mean --seed?")),
        (("evaluate", "RUN", "--config-dir", "nosuch"), (2, "nosuch: no such folder")),
        (("data", "list", "--config-dir", "nosuch"), (2, "nosuch: no such folder")),
        (("evaluate", "RUN", "data.labels=5"), (2, "data.labels=5: what was trained stays as it is")),
        (("evaluate", "RUN", "evaluators.error_rate=3"), (2, "evaluators.error_rate=3: should be a valid")),
        (("evaluate", "RUN", "evaluators.error_rate.every=[1"), (2, "while parsing a flow sequence")),
        (("evaluate", "RUN", "--trust", "nosuch.part"), (2, "there is no module nosuch.part")),
        (("data", "verify", "digits", "--trust", ""), (2, "there is no module .")),
        (("data", "verify"), (2, "required: NAME\n")),
        (("sample", "RUN", "RUN"), (2, "one argument too many")),
        (("report", "--format", "cvs"), (2, "there is no cvs. Did you mean csv?")),
    ],
)
def test_a_wrong_use_is_a_sentence_with_its_status_and_leaves_nothing(
    run: Run, aae: Toolbox, cwd: Path, arguments: tuple[str, ...], ended: tuple[int, str]
) -> None:
    (cwd / "file").touch()
    runs = {"RUN": "semi_supervised", "BASELINE": "baseline", "SUPERVISED": "supervised"}
    given = [run(runs[one]).folder if one in runs else one for one in arguments]
    found = aae(*given)
    assert found[0] == ended[0], found
    assert ended[1] in found[1]
    assert "Traceback" not in found[1]
    assert [path.name for path in cwd.iterdir()] == ["file"]


@pytest.mark.parametrize("left", ["checkpoints", "run.log", ".hydra"])  # the latter before a state is saved
def test_an_unfinished_run_is_told_from_no_run(aae: Toolbox, tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    status, said = aae("sample", tmp_path)
    assert (status, "not finished; the command that started it continues it" in said) == (2, True)
