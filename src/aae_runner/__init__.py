"""Train and study adversarial autoencoders (Makhzani et al., arXiv 1511.05644) from Hydra configs."""

from importlib.metadata import version

__version__ = version("aae-runner")
