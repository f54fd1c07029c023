"""Train and study adversarial autoencoders (Makhzani et al., arXiv 1511.05644) from Hydra configs.

In a script or a notebook, `train` does what `aae-run` does, and `open_run` opens what it left.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aae_runner.finished import open_run
    from aae_runner.launch import train

__version__ = "0.1.0"
__all__ = ["open_run", "train"]


def __getattr__(name: str) -> Any:
    # on first use: torch takes seconds to import, and help and mistakes do not need it
    if name == "open_run":
        from aae_runner.finished import open_run

        return open_run
    if name == "train":
        from aae_runner.launch import train

        return train
    raise AttributeError(f"module {__name__} has no attribute {name}")
