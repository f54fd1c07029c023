"""The paper's phases. Each says which updates it consists of; the trainer knows only updates."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from aae_runner import losses
from aae_runner.data import Batch
from aae_runner.engine import Objective, Phase
from aae_runner.errors import ConfigError
from aae_runner.latents import ClusterHeads, Codes
from aae_runner.latents import Gaussian as GaussianHead
from aae_runner.model import Model, categorical
from aae_runner.priors import Gaussian, Prior

Stream = Literal["all", "labelled"]
MakeDiscriminator = Callable[[int], nn.Module]
"""From the dimension of a code to a network (B, dimension) -> (B, 1), logits."""


class Reconstruction(Phase):
    """Encoder and decoder lower the reconstruction error (Section 2).

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        stream: which images are reconstructed.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        stream: Stream = "all",
    ) -> None:
        super().__init__(model, stream)

    def objectives(self) -> dict[str, Objective]:
        """One update, of the whole autoencoder."""
        return {"autoencoder": Objective(self._loss, [self.model])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        decoded = self.model.decode({name: code.value for name, code in codes.items()})
        return {"reconstruction": losses.reconstruction(batch.x, decoded)}


class Regularization(Phase):
    """Codes are pushed towards their priors by one discriminator each (Section 2; two of them in Section 5).

    First every discriminator learns to tell its prior's samples from codes, then the encoder learns, in
    one update, to fool all of them. A head that learns nothing (a given label) needs no discriminator.

    With `condition`, each discriminator is also told the label (Section 2.3): a one-hot with one class more
    for "hidden". The i-th prior sample is drawn under, and shown with, the i-th image's label; were the two
    sides drawn independently, it would win on label frequencies alone.

    Args:
        model: the autoencoder.
        priors: by the name of their head.
        make_discriminator: makes a discriminator for codes of a dimension.
        stream: which images are encoded.
        condition: number of classes of the labels that the discriminators are told; null: they are not.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        stream: Stream = "all",
        condition: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        super().__init__(model, stream)
        learned = [name for name in priors if list(model.heads[name].parameters())]
        if not learned:
            raise ConfigError("no head has a prior. Add one to priors.")
        parts = {name: priors[name].parts for name in learned}
        for name, known in parts.items():
            if condition is not None and known is not None and known < condition:
                raise ConfigError(
                    f"the prior of {name} has {known} parts, fewer than {condition} classes. Give it one for "
                    "each: prior.components or prior.segments."
                )
        if condition is not None and not any(parts.values()):
            raise ConfigError(
                f"condition={condition}: labels choose a part of the prior, but that of "
                f"{' and '.join(parts)} has no parts. Choose prior=gaussian_mixture or prior=swiss_roll, "
                "which have, or condition=null."
            )
        self.condition = condition
        told = 0 if condition is None else condition + 1
        self.register_buffer("told", torch.eye(told), persistent=False)  # one-hots
        self.told: Tensor
        self.priors = nn.ModuleDict({name: priors[name] for name in learned})
        self.discriminators = nn.ModuleDict(
            {name: make_discriminator(priors[name].dimension + told) for name in learned}
        )

    def objectives(self) -> dict[str, Objective]:
        """Two updates: of all discriminators, then of the encoder as their generator."""
        encoder = [self.model.encoder, *(self.model.heads[name] for name in self.discriminators)]
        return {
            "discriminator": Objective(self._discriminator_loss, [self.discriminators]),
            "generator": Objective(self._generator_loss, encoder),
        }

    def codes(self, batch: Batch) -> Codes:
        """Of the images, y averaged over their corrupted copies."""
        return self.model.infer(batch.x_in, batch.y)

    def _discriminator_loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        terms = {}
        for name, discriminator in self.discriminators.items():
            real, fake = self._prior_sample(name, batch.y), codes[name].value.detach()
            seen = torch.cat([self._told(real, batch.y), self._told(fake, batch.y)])
            logits = discriminator(seen).squeeze(1)  # one pass for both: (2B,)
            terms[f"discriminator_{name}"] = losses.discriminator(*logits.chunk(2))
        return terms

    def _generator_loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        return {
            f"generator_{name}": losses.generator(
                discriminator(self._told(codes[name].value, batch.y)).squeeze(1)
            )
            for name, discriminator in self.discriminators.items()
        }

    def _told(self, z: Tensor, y: Tensor) -> Tensor:
        """(B, D) -> (B, D + condition + 1) where the discriminators are told the label."""
        if self.condition is None:
            return z
        return torch.cat([z, self.told[y]], dim=1)

    def _prior_sample(self, name: str, y: Tensor) -> Tensor:
        prior = self.priors[name]
        assert isinstance(prior, Prior)
        whole = prior.sample(len(y))
        if self.condition is None:
            return whole
        of_label = prior.sample(len(y), y.clamp_max(self.condition - 1))
        return torch.where((y < self.condition).unsqueeze(1), of_label, whole)


class Classification(Phase):
    """q(y|x) lowers its cross-entropy on labelled images (Section 5).

    Args:
        model: the autoencoder.
        priors: unused.
        make_discriminator: unused.
        head: the categorical head that is q(y|x).
        classes: number of classes of the labels; the head must have as many or more.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "label",
        classes: Annotated[int, Ge(2)],
    ) -> None:
        super().__init__(model, "labelled")
        self.head, self.classes = categorical(model, head, classes), classes

    def objectives(self) -> dict[str, Objective]:
        """One update, of the encoder's trunk and the label head."""
        return {"classifier": Objective(self._loss, [self.model.encoder, self.model.heads[self.head]])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        return {"classification": losses.classification(codes[self.head].parameters, batch.y)}


class HeadDistance(Phase):
    """Cluster heads closer than a threshold are pushed apart (Section 7), but for those of merged clusters.

    Args:
        model: the autoencoder; its join must have learned heads (`ClusterHeads`).
        priors: unused.
        make_discriminator: unused.
        threshold: distance from which two heads no longer repel each other, in units of z.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        threshold: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(model, "all")
        if not isinstance(model.join, ClusterHeads) or not isinstance(model.join.heads, nn.Parameter):
            raise ConfigError("the join has no learned heads: it must be ClusterHeads with scale=null.")
        self.threshold = threshold

    def objectives(self) -> dict[str, Objective]:
        """One update, of W_C alone."""
        return {"heads": Objective(self._loss, [self._join])}

    def codes(self, batch: Batch) -> Codes:
        """None: the cost is one of the heads alone."""
        return {}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        members = getattr(self.model.heads[self._join.label], "members", None)
        there = None if members is None else members.any(0)
        heads = self._join.get_parameter("heads")
        return {"head_distance": losses.head_distance(heads, self.threshold, there)}

    @property
    def _join(self) -> ClusterHeads:
        assert isinstance(self.model.join, ClusterHeads)
        return self.model.join


class ELBO(Phase):
    """The negative evidence lower bound of a variational autoencoder, the paper's comparison (Fig. 2).

    The divergence from a Gaussian prior is computed in closed form, from any other prior with a density by
    Monte Carlo at the very z that is decoded.

    Args:
        model: the autoencoder; its head must be Gaussian.
        priors: by the name of their head.
        make_discriminator: unused.
        head: the head that is z.
        likelihood: of the pixels: `bernoulli`, or `gaussian` with standard deviation 1.
        stream: which images it sees.
    """

    def __init__(
        self,
        model: Model,
        priors: Mapping[str, Prior],
        make_discriminator: MakeDiscriminator,
        /,
        *,
        head: str = "style",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        stream: Stream = "all",
    ) -> None:
        super().__init__(model, stream)
        if head not in priors or not isinstance(model.heads[head], GaussianHead):
            raise ConfigError(f"the head {head} must be Gaussian and have a prior.")
        self.head, self.prior, self.likelihood = head, priors[head], likelihood
        if likelihood == "bernoulli" and not isinstance(model.output, nn.Sigmoid):
            raise ConfigError("likelihood=bernoulli: it needs network.output=sigmoid. Or choose gaussian.")
        name = type(self.prior).__name__
        if not self.prior.has_density:
            raise ConfigError(f"the prior {name} has no density to measure a divergence from.")
        if self.prior.bounded:
            raise ConfigError(
                f"the prior {name} ends somewhere: a Gaussian's divergence from it is infinite."
            )

    def objectives(self) -> dict[str, Objective]:
        """One update, of the whole autoencoder."""
        return {"autoencoder": Objective(self._loss, [self.model])}

    def _loss(self, batch: Batch, codes: Codes) -> dict[str, Tensor]:
        logits = self.model.logits({name: code.value for name, code in codes.items()})
        if self.likelihood == "bernoulli":
            error = losses.bernoulli(batch.x, logits)
        else:
            error = losses.reconstruction(batch.x, self.model.output(logits))
        z, parameters = codes[self.head]
        mean, log_variance = parameters.chunk(2, dim=1)
        if isinstance(self.prior, Gaussian):
            divergence = losses.kl_to_gaussian(mean, log_variance, self.prior.std)
        else:
            log_q = losses.log_gaussian(z, mean, log_variance)
            divergence = (log_q - self.prior.log_density(z.to(log_q.dtype))).mean()
        return {"reconstruction": error, "divergence": divergence}
