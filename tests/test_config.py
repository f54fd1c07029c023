"""What a config may say, and what a run is called."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, composed, exit_status

from aae_runner.build import Builder
from aae_runner.config import CONF, Network, choices, identity
from aae_runner.errors import ConfigError
from aae_runner.experiment import choose_device
from aae_runner.parts import build_parts

SMALL = "network.encoder.width=8", "network.decoder.width=8", "network.discriminator.width=8"


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {name: composed(f"network={name}").network for name in choices("network")}


@pytest.mark.parametrize(("variant", "data"), list(product(choices("variant"), choices("data"))))
def test_every_variant_is_built_on_every_data_set_and_network(
    variant: str, data: str, networks: dict[str, Network]
) -> None:
    gaussian = ["phases.elbo.likelihood=gaussian"] * (variant == "vae")  # which a linear output needs
    config = composed(f"variant={variant}", f"data={data}", *gaussian)
    for network in networks.values():
        with torch.device("meta"):  # shapes without memory
            parts = build_parts(replace(config, network=network), Builder())
            x, y = torch.zeros(2, *config.data["shape"]), torch.zeros(2).long()
            codes = parts.model.encode(x, y)
            if parts.model.decoder is not None:
                decoded = parts.model.decode({name: code.value for name, code in codes.items()})
                assert decoded.shape == x.shape


def test_a_network_that_cannot_take_the_pictures_says_so() -> None:
    config = composed("network=conv", "network.encoder.depth=4")  # 8x8 pixels are halved three times
    with pytest.raises(ConfigError, match=r"network\.encoder: .*8x8 pixels cannot be halved 4 times"):
        build_parts(config, Builder())


@pytest.mark.parametrize(("variant", "prior"), list(product(choices("variant"), choices("prior"))))
def test_every_variant_takes_every_prior_or_says_why_not(variant: str, prior: str) -> None:
    config = composed(f"variant={variant}", f"prior={prior}", *SMALL)
    size, problem = config.heads.get("style", {}).get("size"), ""
    try:
        priors = build_parts(config, Builder()).priors
        assert all(one.sample(3).shape == (3, one.dimension) for one in priors.values())
        assert "style" not in priors or priors["style"].dimension == size
    except ConfigError as error:
        problem = str(error)
    known = (
        "has no parts",
        rf"heads\.style\.size={size}, but .* has \d+ dimensions",
        "divergence from it is infinite",
    )
    assert not problem or any(re.search(one, problem) for one in known)


@pytest.mark.parametrize("schedule", choices("schedule"))
def test_every_schedule_is_composed(schedule: str) -> None:
    assert composed(f"schedule={schedule}").schedule.epochs >= 1


def test_clustering_plays_its_game_by_sgd_unless_another_schedule_is_asked_for() -> None:
    def game(*overrides: str) -> str:
        schedule = composed("variant=clustering", "data=mnist", *overrides).schedule
        return str(schedule.phases["regularization"]["generator"]["_target_"])

    assert game() == "torch.optim.SGD"
    assert game("schedule=adam") == "torch.optim.Adam"


@pytest.mark.parametrize("recipe", [path.stem for path in (CONF / "recipe").glob("*.yaml")])
def test_every_recipe_belongs_to_a_combination_that_exists(recipe: str) -> None:
    combinations = product(choices("data"), choices("variant"), choices("schedule"))
    assert recipe in {"_".join(combination) for combination in combinations}


EXPERIMENTS = choices("experiment")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_built(name: str) -> None:
    config = composed(f"experiment={name}")
    assert config.runs != ""
    with torch.device("meta"):  # shapes without memory
        build_parts(config, Builder())


@pytest.mark.parametrize("paper", [name for name in EXPERIMENTS if name.startswith("paper_")])
def test_beside_each_experiment_of_the_paper_stands_a_quick_one_of_the_same_kind(paper: str) -> None:
    quick = composed(f"experiment={paper.replace('paper_', 'quick_')}")
    original = composed(f"experiment={paper}")
    assert quick.reference == original.reference
    assert (original.reference is not None) == (
        "reference:" in (CONF / f"experiment/{paper}.yaml").read_text()
    )
    assert quick.phases == original.phases
    assert (quick.data["_target_"], quick.data["labels"]) == (
        original.data["_target_"],
        original.data["labels"],
    )
    assert [prior["_target_"] for prior in quick.priors.values()] == [
        prior["_target_"] for prior in original.priors.values()
    ]
    assert quick.schedule.epochs < original.schedule.epochs


WRONG = {
    "variant=semi_supervise": ["variant=semi_supervise", "Did you mean semi_supervised?"],
    "data.label=100": ["data.label ", "Did you mean labels?"],
    "schedule.epochs=-1": ["schedule.epochs=-1", "greater than or equal to 1"],
    "schedule.epochs=abc": ['schedule.epochs="abc"', "integer"],
    "schedule.phases.classification.every=2": ["To add it: +schedule.phases.classification.every=VALUE"],
    "+shedule.epochs=3": ["shedule", "Did you mean schedule?"],
    "+data.colour=3": ["data.colour"],
    "prior=null": ["prior=null", "gaussian_mixture"],
    "recipe=null": ["recipe=null", "Write ~recipe"],
    "schedule.decay={5: 0.1}": ["schedule.decay"],
    "~prior": ["prior"],
    "data.labels=7000000": ["data.labels=7000000", "2 to 1000"],
    "data.labels=none": ['data.labels="none" is not allowed. Allowed: integer ≥ 2 or `all`.'],
    "data.label_seed=abc": ['data.label_seed="abc" is not allowed. Allowed: integer ≥ 0 or `null`.'],
    "evaluators.error_rate.every=0": ["every=0 is not allowed. Allowed: integer ≥ 1 or `null`."],
    "reference=4": ["reference=4 is not allowed. Allowed: its keys (metric, value, deviation, source) or"],
    "prior=gaussian_mixture": ["heads.style.size=10", "GaussianMixture has 2 dimensions"],
    "heads.style.size=ten": ["heads.style.size"],
    "heads.label=null": ["priors.label", "Heads: style"],
    "priors.label=null": ["evaluators.samples", "prior of the head label"],
    "evaluators.latent_map.head=stile": ["evaluators.latent_map", "stile"],
    "evaluators.samples._target_=aae_runner.evaluators.Sample": ["Sample", "Did you mean Samples?"],
    "phases.classification.head=lable": ["phases.classification", "label"],
    "schedule.phases.regularization.generator.lr=abc": ["schedule.phases.regularization.generator.lr"],
    "schedule.phases.regularization.generator.lr=-1": ["schedule.phases.regularization.generator"],
    "+schedule.phases.regularization.generater.lr=1": ["generater", "Did you mean generator?"],
    "+schedule.phases.clasification.every=2": ["clasification", "Did you mean classification?"],
    "phases.classification.classes=5": ["phases.classification.classes=5", "data.classes=10"],
    "+schedule.phases.classification.start=inf": ["schedule.phases.classification.start", "less than"],
    "heads.label.size=5": ["phases.classification", "size 10 or more"],
    "phases.classification.head=style": ["phases.classification", "categorical"],
    "data.labels=1": ["data.labels=1 is not allowed", "≥ 2"],
    "device=meta": ["device=meta", "cpu"],
    "+phases.reconstruction.optimizer.lr=1e-4": ["phases.reconstruction.optimizer", "would not be used"],
    "network.encoder.activation=rellu": ["network.encoder.activation", "'relu'"],
    "network.corruption.dropout=1": ["network.corruption.dropout", "less than 1"],
    "device=cuda:99": ["device=cuda:99: not to be had here", "Allowed: auto, cpu"],
    "evaluators.error_rate.head=style": ["evaluators.error_rate", "categorical"],
    "+schedule.phases.classification.start=200": ["phases.classification: the run ends before it begins"],
    "seed=-1": ["seed=-1"],
    "schedule=": ["schedule"],
    "data.labels==3": ["data.labels==3"],
    "runs=seed0~1": ["runs=seed0~1: cannot be read", "quoted twice: \"runs='seed0~1'\"."],
    "weights=nowhere": ["weights=nowhere: neither it nor its folder seed0 is a finished run"],
    "runs='~nouser/x'": ["runs=~nouser/x: there is no such home"],
    "prior=5": ["prior=5: there is no such prior", "gaussian_mixture"],
    "recipe=mnist_basic_adem": ["there is no such recipe. Did you mean mnist_basic_adam?"],
    "seed=1,2": ["add -m"],
    "+head@heads.style=deterministic": ["leave out the +"],
    "evaluator@evaluators.probe=probe": ["put a + before it"],
    "+evaluators.style_grid.rows=3": ["leave out the +"],
    "/head@heads.style=gaussian": ["Write it without the /: head@heads.style=gaussian."],
    "--config-name=foo": ["--config-name foo: there is no such config"],
    "--config-dir=": ["--config-dir: its name is empty"],
    "+heads.type={_target_:aae_runner.latents.Deterministic,size:2}": ["heads.type", "Choose another"],
    "+phase@phases.keys=classification": ["phases.keys", "Choose another"],
    "schedule.phases.regularization.generator.betas=[0.5]": ["betas=[0.5]: has too few values"],
    "reference={metric:a,value:0.1,source:x,deviaton:3}": ["Did you mean deviation?"],
    "schedule.phases.reconstruction.optimizer._target_=torch.optim.LBFGS": ["Take torch.optim.SGD, Adam"],
}


@pytest.mark.parametrize("override", WRONG)
def test_a_mistake_ends_with_a_sentence_and_status_2_and_leaves_nothing(
    override: str, command: Command, tmp_path: Path
) -> None:
    status, said = command(override)
    assert status == 2
    assert all(part in said for part in WRONG[override])
    assert "Traceback" not in said
    assert said.count("\n") <= 2
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, here in (0, "torch finds no GPU. Allowed: auto, cpu."), (2, "auto, cpu, cuda, cuda:0, cuda:1."):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=gpus: count)
        with pytest.raises(ConfigError) as caught:
            choose_device("tpu")
        assert str(caught.value).endswith(here)


def test_options_may_stand_between_overrides(command: Command) -> None:
    status, _ = command(*TINY, "schedule.epochs=1", "-m", "evaluators={}", "seed=0,1", "data.labels=20")
    assert status == 0
    assert len(list(Path("runs").rglob("results.json"))) == 2


def test_a_rate_of_a_phase_that_the_run_has_not_is_told_to_change_nothing(
    command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "schedule.phases.classification.optimizer.lr=1e-2"
    arguments = "variant=vae", *TINY, "schedule.epochs=1", "evaluators={}", key
    assert exit_status("aae-run", *arguments) == 0
    assert f"{key}: changes nothing; this run has no such phase, but elbo." in capfd.readouterr().out


def test_a_users_files_that_cannot_be_read_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "prior").mkdir(parents=True)
    yaml = tmp_path / "mine" / "prior" / "ring.yaml"
    yaml.write_bytes("# Käse\n".encode("latin-1"))
    arguments = "--config-dir", str(tmp_path / "mine"), "variant=basic", "prior=ring"
    assert command(*arguments) == (2, f"aae-run: {yaml}: is not in UTF-8. Save it so.\n")
    yaml.write_text("_target_: broken.Ring\n")
    (tmp_path / "mine" / "broken.py").write_text("class Ring\n")
    status, said = command(*arguments)
    assert (status, "broken.py, line 1: this is no Python" in said) == (2, True)


def test_a_sweep_of_no_jobs_is_an_error(command: Command, tmp_path: Path) -> None:
    status, said = command("-m", "experiment=glob(nothing*)")
    assert (status, "matches nothing" in said) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_trusted_module_or_a_folder_that_does_not_exist_is_refused(
    command: Command, tmp_path: Path
) -> None:
    for arguments, said in (
        (("trusted=[nosuch]",), "there is no module nosuch"),
        (("--config-dir", "nosuch"), "nosuch' not found"),
    ):
        status, found = command(*arguments)
        assert (status, said in found) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "logging.os.system",
        "aae_runner.datasets.pictures.ThreadPoolExecutor",
        "aae_runner.cli.os.system",
        "aae_runner.recorder.Recorder",  # ours, but its constructor writes
        "aae_runner.trainer._move_aside",
        "aae_runner.datasets.files.fetch",  # ours and in a place of classes, but a function that writes
        "torch.nn.modules.module.torch.load",
        "nosuch.A",
    ],
)
def test_a_target_outside_the_trusted_places_is_refused_and_not_run(
    target: str, command: Command, tmp_path: Path
) -> None:
    status, said = command(f"data._target_={target}", f"+data.command='touch {tmp_path}/executed'")
    assert status == 2
    assert target in said
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "told", ["variant=supervised heads.label.size=5",
             "variant=label_conditioned phases.regularization.condition=5 prior=swiss_roll"],
)  # fmt: skip
def test_parts_that_are_told_labels_must_know_how_many_classes_these_have(told: str) -> None:
    with pytest.raises(ConfigError, match=r"=5: labels have data\.classes=10 classes"):
        build_parts(composed(*told.split()), Builder())


@pytest.mark.parametrize(
    "command", ["data=svhn schedule=paper_svhn", "data=mnist variant=clustering schedule.decay=[[250,0.1]]"]
)
def test_a_decay_in_steps_takes_the_place_of_the_one_below_it(command: str) -> None:
    assert composed(*command.split()).schedule.decay == [(250, 0.1)]


def test_the_identity_of_three_commands_is_what_it_was() -> None:
    found = [
        identity(composed(*overrides))
        for overrides in (
            (),
            ("variant=basic", "prior=gaussian_mixture", "data=mnist"),
            ("data=svhn", "schedule=paper"),
        )
    ]
    assert found == ["9a6147a1f1", "36c60b8733", "3c2df1ddcb"]


NEUTRAL = (
    "seed=7", "runs=elsewhere", "resume=false", "device=cpu", "trusted=[mine]", "logging.every=7",
    "engine=eager", "objective=valid/error_rate",
    "checkpoint.minutes=1", "schedule.epochs=3", "data.download=false", "data.root=/elsewhere",
    "~data.train_on",
    "reference={metric: test/error_rate, value: 0.019, source: Table 2}",
)  # fmt: skip


@pytest.mark.parametrize("override", NEUTRAL)
def test_what_does_not_change_the_learning_does_not_change_the_identity(override: str) -> None:
    assert identity(composed("data=mnist", override)) == identity(composed("data=mnist"))


@pytest.mark.parametrize(
    "override",
    ["data.labels=50", "heads.style.size=9", "data.label_seed=1", "data.train_on=train+valid",
     "network.corruption.noise=0.1", "schedule.phases.reconstruction.optimizer.lr=0.1",
     "evaluators.samples=null"],
)  # fmt: skip
def test_what_changes_the_run_changes_its_identity(override: str) -> None:
    assert identity(composed("data=mnist", override)) != identity(composed("data=mnist"))


def test_where_data_without_checksums_lie_belongs_to_the_identity() -> None:
    unchecked = "data=mnist", "data.checksums=false"
    assert identity(composed(*unchecked, "data.root=/a")) != identity(composed(*unchecked, "data.root=/b"))


def test_help_has_a_line_about_each_choice_of_each_group() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "aae_runner", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for group in ("data", "prior", "variant", "schedule", "network"):
        for name, line in choices(group).items():
            assert f"{group}={name}" in said
            assert line in said


def test_help_and_mistakes_do_not_wait_for_torch() -> None:
    code = "import sys, aae_runner.cli, aae_runner.toolbox; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_without_a_phase_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing would be learned"):
        composed("variant=vae", "phases.elbo=null")


def test_null_switches_an_entry_off() -> None:
    config = composed("evaluators.samples=null", "phases.classification=null")
    assert "samples" not in config.evaluators
    assert list(config.phases) == ["reconstruction", "regularization"]
