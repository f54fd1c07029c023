"""The paper's other phases, heads and joins, against theory."""

import math
import re

import pytest
import torch
from conftest import TINY, Command, composed, experiment
from scipy import integrate, stats
from torch import nn
from torch.autograd import gradcheck

from aae_runner import losses
from aae_runner.build import Builder
from aae_runner.config import choices
from aae_runner.errors import ConfigError
from aae_runner.evaluators.clusters import by_assignment, by_confidence, by_majority
from aae_runner.evaluators.snapshot import contingency
from aae_runner.latents import Categorical, ClusterHeads, Gaussian, TrueLabel, UniversalApproximator
from aae_runner.parts import build_parts
from aae_runner.phases import Regularization


@pytest.mark.parametrize("variant", choices("variant"))
def test_every_variant_trains_and_leaves_finite_losses_and_all_its_findings(variant: str) -> None:
    run = experiment(f"variant={variant}", "schedule.batch=50")
    for step in range(3):
        assert all(math.isfinite(float(value)) for value in run.step(step).values())
    assert run.look("test", None)


@pytest.mark.parametrize("std", [1.0, 5.0])
def test_the_divergence_of_the_vae_is_that_of_numeric_integration(std: float) -> None:
    mean, variance = 1.3, 0.4
    q, p = stats.norm(mean, math.sqrt(variance)), stats.norm(0, std)
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -10, 10)
    two = torch.full((3, 2), mean), torch.full((3, 2), math.log(variance))
    assert float(losses.kl_to_gaussian(*two, std)) == pytest.approx(2 * expected, rel=1e-5)


def test_the_log_density_of_q_is_that_of_scipy() -> None:
    z, mean, log_variance = (torch.randn(5, 3, generator=torch.Generator().manual_seed(k)) for k in range(3))
    expected = stats.norm(mean, (0.5 * log_variance).exp()).logpdf(z).sum(1)
    assert losses.log_gaussian(z, mean, log_variance).numpy() == pytest.approx(expected, rel=1e-4)


def test_the_bernoulli_likelihood_sums_over_pixels_and_averages_over_images() -> None:
    x, logits = torch.full((2, 1, 4, 4), 0.25), torch.zeros(2, 1, 4, 4)
    assert float(losses.bernoulli(x, logits)) == pytest.approx(16 * math.log(2))


def test_heads_repel_each_other_up_to_the_threshold_and_no_further() -> None:
    heads = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 10.0]])
    assert float(losses.head_distance(heads, threshold=4.0)) == pytest.approx(1.0)
    there = torch.tensor([True, False, True])
    assert float(losses.head_distance(heads, 10.5, there)) == pytest.approx(0.5)  # of the first and the third
    near = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.3, 1.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda heads: losses.head_distance(heads, 4.0), near)


def test_the_head_distance_phase_moves_the_heads_alone_and_encodes_nothing() -> None:
    run = experiment("variant=dim_reduction")
    phase = next(one for one in run.phases if one.name == "head_distance")
    before = {name: value.clone() for name, value in phase.phase.named_parameters()}
    phase.run({"all": run.data.draw("all", 0)})
    changed = {name for name, value in phase.phase.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"model.join.heads"}
    assert phase.phase.codes(run.data.draw("all", 0)) == {}


def test_the_decoder_of_dimensionality_reduction_sees_heads_plus_style() -> None:
    join = ClusterHeads({"style": 3, "label": 3}, scale=10.0)
    seen = join({"style": torch.ones(3, 3), "label": torch.eye(3)})
    assert torch.equal(seen, torch.ones(3, 3) + 10 * torch.eye(3))
    with pytest.raises(ConfigError, match="as many dimensions"):
        ClusterHeads({"style": 2, "label": 10}, scale=10.0)


def test_a_gaussian_posterior_samples_in_training_and_gives_its_mean_in_evaluation() -> None:
    torch.manual_seed(0)
    head = Gaussian(4, size=2)
    features, y = torch.randn(1, 4).repeat(50_000, 1), torch.zeros(50_000).long()
    code = head(features, y)
    mean, log_variance = code.parameters[0].detach().chunk(2)
    sampled = code.value.detach()
    assert torch.allclose(sampled.mean(0), mean, atol=0.03)
    assert torch.allclose(sampled.var(0), log_variance.exp(), rtol=0.05)
    head.eval()
    assert torch.allclose(head(features[:1], y[:1]).value[0], mean)


def test_a_universal_approximator_gives_another_code_of_the_same_image() -> None:
    head = UniversalApproximator(4, size=2, noise=3, width=8)
    features, y = torch.randn(1, 4), torch.zeros(1).long()
    assert not torch.equal(head(features, y).value, head(features, y).value)


def test_with_layer_norm_no_image_is_surer_of_its_class_for_having_larger_features() -> None:
    torch.manual_seed(0)
    features, y = torch.rand(4, 6), torch.zeros(4).long()
    normalized, plain = Categorical(6, size=3, layer_norm=True), Categorical(6, size=3)
    assert torch.allclose(normalized(5 * features, y).value, normalized(features, y).value, atol=1e-3)
    assert not torch.allclose(plain(5 * features, y).value, plain(features, y).value, atol=1e-3)


def test_with_a_spread_no_class_can_sink_or_shrink_whatever_its_weights() -> None:
    torch.manual_seed(0)
    head = Categorical(6, size=3, batch_norm=True, spread=10.0)
    weight = next(head.parameters())
    with torch.no_grad():
        weight[1] *= 0.1
    logits = head(torch.randn(400, 6) + 5, torch.zeros(400).long()).parameters
    assert torch.allclose(logits.mean(0), torch.zeros(3), atol=1e-3)
    assert torch.allclose(logits.std(0, unbiased=False), torch.full((3,), 10.0), rtol=0.01)
    assert [name for name, _ in head.named_parameters()] == ["linear.0.weight"]


def test_a_spread_without_batch_norm_is_refused_in_a_sentence(command: Command) -> None:
    status, said = command("heads.label.spread=10", "heads.label.batch_norm=false")
    assert status == 2
    assert "heads.label: spread=10" in said


def test_a_given_label_is_one_hot_and_a_hidden_one_all_zeros() -> None:
    code = TrueLabel(4, size=3)(torch.zeros(2, 4), torch.tensor([1, 3]))
    assert code.value.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_supervised_reads_the_labels_of_the_labelled_stream_alone_and_gives_them_no_discriminator() -> None:
    run = experiment("variant=supervised", "data.labels=50")
    assert {phase.phase.stream for phase in run.phases} == {"labelled"}
    assert [name for name, _ in run.phases[1].phase.get_submodule("discriminators").named_children()] == [
        "style"
    ]


def test_a_conditional_discriminator_sees_prior_samples_under_the_very_labels_of_the_images() -> None:
    run = experiment("variant=label_conditioned", "data.labels=500", "schedule.batch=400")
    phase = run.phases[1].phase
    assert isinstance(phase, Regularization)
    seen: list[torch.Tensor] = []
    phase.discriminators["style"].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    batch = run.data.draw("all", 0)
    run.phases[1].run({"all": batch})
    real, fake = seen[0].chunk(2)
    assert torch.equal(real[:, 2:], fake[:, 2:])  # one-hot of 10 labels and "hidden"
    assert torch.equal(real[:, 2:].argmax(1), batch.y)
    labelled = batch.y < 10
    assert 100 < int(labelled.sum()) < 300
    angle = torch.atan2(real[:, 1], real[:, 0]) % (2 * math.pi)
    off = (angle - batch.y * (2 * math.pi / 10) + math.pi) % (2 * math.pi) - math.pi
    near = off.abs() < math.pi / 10
    assert float(near[labelled].float().mean()) > 0.9  # each in its label's component
    assert float(near[~labelled].float().mean()) < 0.3  # hidden: from the whole prior


def test_a_supervised_model_is_calibrated_with_the_labels_it_is_trained_with() -> None:
    run = experiment("variant=supervised", "data.labels=50")
    given: list[torch.Tensor] = []
    run.model.heads["label"].register_forward_hook(lambda module, inputs, output: given.append(inputs[1]))
    run.look("valid", None)
    assert int(given[0].max()) < 10  # 10 would be "hidden"


@pytest.mark.parametrize("prior", choices("prior"))
def test_labels_can_choose_a_part_only_of_a_prior_with_parts_and_the_error_names_those(prior: str) -> None:
    with pytest.raises(ConfigError, match=r"phases\.regularization: condition=10: .*has no parts") as caught:
        build_parts(composed("variant=label_conditioned", "prior=gaussian", *TINY), Builder())
    config = composed("variant=label_conditioned", f"prior={prior}", *TINY)
    if f"prior={prior}" in re.split(r"[ ,]", str(caught.value)):
        assert build_parts(config, Builder()).priors["style"].parts == 10
    else:
        with pytest.raises(ConfigError, match="has no parts"):
            build_parts(config, Builder())


def test_a_prior_with_fewer_parts_than_classes_cannot_be_conditioned_on_them() -> None:
    config = composed("variant=label_conditioned", "prior.components=8")
    with pytest.raises(ConfigError, match="8 parts, fewer than 10 classes"):
        build_parts(config, Builder())


def test_a_vae_refuses_a_prior_that_ends_somewhere() -> None:
    with pytest.raises(ConfigError, match="infinite"):
        build_parts(composed("variant=vae", "prior=uniform"), Builder())


def test_the_baseline_has_no_decoder_and_no_adversary() -> None:
    parts = build_parts(composed("variant=baseline"), Builder())
    assert parts.model.decoder is None
    assert list(parts.phases) == ["classification"]
    assert list(parts.model.heads) == ["label"]


def test_a_cluster_takes_the_label_of_its_surest_image_where_softmaxes_tie() -> None:
    # both softmaxes are exactly 1, in float64 too; the second image is surer
    logits = torch.tensor([[40.0, 0.0], [60.0, 0.0], [0.0, 5.0]])
    assert by_confidence(logits, torch.tensor([7, 3, 4])).tolist() == [3, 4]


def test_the_surest_image_has_the_largest_odds_for_its_cluster_against_all_others_together() -> None:
    torch.manual_seed(0)
    logits = 20 * torch.randn(300, 6, dtype=torch.float64)
    odds = [logits[:, k] - logits[:, [i for i in range(6) if i != k]].logsumexp(1) for k in range(6)]
    found = by_confidence(logits, torch.arange(300))
    assert found.tolist() == [int(one.argmax()) for one in odds]


def test_clusters_take_majority_labels_and_an_empty_one_the_commonest() -> None:
    counts = contingency(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 2, 1, 0, 0]), k=3, classes=3)
    assert counts.tolist() == [[0, 1, 2], [2, 0, 0], [0, 0, 0]]
    assert by_majority(counts).tolist() == [2, 0, 0]


def test_the_assignment_is_one_to_one_and_leaves_clusters_over() -> None:
    counts = contingency(torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 0, 0, 0, 1, 1]), k=3, classes=2)
    labels = by_assignment(counts)
    assert sorted(labels.tolist()) == [-1, 0, 1]
    right = sum(counts[k, label] for k, label in enumerate(labels) if label >= 0)
    assert right == 3


def test_clustering_reports_its_error_by_three_rules_with_nmi_and_ari() -> None:
    run = experiment("variant=clustering")
    findings = run.look("valid", None)
    rates = {f"cluster_{rule}error_rate" for rule in ("", "majority_", "assignment_")}
    assert rates | {"normalized_mutual_information", "adjusted_rand_index"} <= set(findings)


def test_initial_weights_have_the_stated_standard_deviation_and_biases_are_zero() -> None:
    run = experiment("network.init_std=0.01", "network.encoder.width=400")
    networks = nn.ModuleList([run.model, *(one.phase for one in run.phases)])
    linear = [layer for layer in networks.modules() if isinstance(layer, nn.Linear)]
    weights = torch.cat([layer.weight.detach().flatten() for layer in linear])
    # the standard deviation of n normal numbers strays by 1 / sqrt(2 n) of itself
    assert float(weights.std()) == pytest.approx(0.01, rel=5 / math.sqrt(2 * len(weights)))
    assert not any(layer.bias.any() for layer in linear if layer.bias is not None)


def test_the_papers_own_schedule_of_table_2_lowers_its_losses_from_such_small_weights() -> None:
    run = experiment("experiment=paper_table2_mnist_100", "data=digits", "schedule.batch=50")
    losses_of = [{tag: float(value) for tag, value in run.step(step).items()} for step in range(60)]
    assert all(math.isfinite(value) for one in losses_of for value in one.values())
    (tag,) = (tag for tag in losses_of[0] if tag.endswith("/reconstruction"))
    assert losses_of[-1][tag] < 0.9 * losses_of[0][tag]
