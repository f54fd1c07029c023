"""What others do for the same step of a basic adversarial autoencoder: the rivals of benchmark.py."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

PIXELS, CODE = 784, 8


def network(inputs: int, width: int, outputs: int, *, normalized: bool) -> nn.Sequential:
    """Two hidden layers, as in the paper."""
    layers: list[nn.Module] = []
    for size in (inputs, width):
        layers += [nn.Linear(size, width), *[nn.BatchNorm1d(width)] * normalized, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Pictures(Dataset[tuple[Tensor, int]]):
    """One picture at a time, by way of PIL and a transform, as torchvision's MNIST does it."""

    def __init__(self, images: NDArray[Any]) -> None:
        self.images, self.transform = images, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture: Tensor = self.transform(Image.fromarray(self.images[index]))
        return picture, 0


def textbook(images: NDArray[Any], width: int, batch: int, device: torch.device) -> Callable[[], None]:
    """A pass over images (N, 28, 28), as one would write it with the paper on the desk."""
    encoder = network(PIXELS, width, CODE, normalized=True).to(device)
    decoder = nn.Sequential(network(CODE, width, PIXELS, normalized=True), nn.Sigmoid()).to(device)
    discriminator = network(CODE, width, 1, normalized=False).to(device)
    autoencoder_optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters())
    generator_optimizer = torch.optim.Adam(encoder.parameters())
    loader = DataLoader(Pictures(images), batch_size=batch, shuffle=True, drop_last=True)
    criterion = nn.BCEWithLogitsLoss()

    def run() -> None:
        for pictures, _ in loader:
            x = pictures.to(device).view(len(pictures), -1)
            real, fake = torch.ones(len(x), 1, device=device), torch.zeros(len(x), 1, device=device)

            autoencoder_optimizer.zero_grad()
            reconstruction_loss = 0.5 * F.mse_loss(decoder(encoder(x)), x, reduction="sum") / len(x)
            reconstruction_loss.backward()
            autoencoder_optimizer.step()

            discriminator_optimizer.zero_grad()
            prior = torch.randn(len(x), CODE, device=device)
            discriminator_loss = criterion(discriminator(prior), real) + criterion(
                discriminator(encoder(x).detach()), fake
            )
            discriminator_loss.backward()
            discriminator_optimizer.step()

            generator_optimizer.zero_grad()
            generator_loss = criterion(discriminator(encoder(x)), real)
            generator_loss.backward()
            generator_optimizer.step()

            _ = reconstruction_loss.item(), discriminator_loss.item(), generator_loss.item()

    return run


def pythae(images: NDArray[Any], width: int, batch: int, device: torch.device) -> Callable[[], None]:
    """The same by the trainer of pythae, which encodes once a step."""
    with contextlib.redirect_stdout(io.StringIO()):
        from pythae.data.datasets import BaseDataset
        from pythae.models import Adversarial_AE, Adversarial_AE_Config
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
        from pythae.trainers import AdversarialTrainer, AdversarialTrainerConfig

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(PIXELS, width, CODE, normalized=True)

        def forward(self, x: Tensor) -> Any:
            z = self.layers(x.flatten(1))
            return ModelOutput(embedding=z, log_covariance=torch.zeros_like(z))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(network(CODE, width, PIXELS, normalized=True), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 28, 28))

    class Discriminator(BaseDiscriminator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(network(CODE, width, 1, normalized=False), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(embedding=self.layers(z))

    config = Adversarial_AE_Config(
        input_dim=(1, 28, 28), latent_dim=CODE, deterministic_posterior=True, adversarial_loss_scale=0.5
    )
    model = Adversarial_AE(config, Encoder(), Decoder(), Discriminator())
    x = torch.from_numpy(images).unsqueeze(1).float() / 255
    training = AdversarialTrainerConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, num_epochs=1,
        no_cuda=device.type == "cpu", autoencoder_learning_rate=1e-3, discriminator_learning_rate=1e-3,
    )  # fmt: skip
    logging.getLogger("pythae").setLevel(logging.ERROR)
    trainer = AdversarialTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=training)
    trainer.prepare_training()

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its bar
            trainer.train_step(epoch=1)

    return run
