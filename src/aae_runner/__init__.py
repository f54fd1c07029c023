"""Train and study adversarial autoencoders (Makhzani et al., arXiv 1511.05644) from Hydra configs."""

__version__ = "0.1.0"
