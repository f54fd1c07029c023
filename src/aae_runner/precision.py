"""How exactly float32 matrices are multiplied, and what that gains."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

from aae_runner.errors import ConfigError

EXACT = 1e-6
"""Relative error of a product below which a precision costs no accuracy; TF32 has 3e-4, bfloat16 3e-3."""


def choose_precision(asked: str, device: torch.device) -> tuple[str, float]:
    """Sets how torch multiplies float32 matrices: (the precision, the measured relative error of a product).

    What `medium` does depends on the machine: some have a faster kernel of full accuracy behind it, others
    round to bfloat16. `auto` measures, and takes `medium` only where its error is below `EXACT`.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator).to(device) for _ in range(2))
    exact = a.double() @ b.double()
    torch.backends.cudnn.allow_tf32 = asked in ("high", "medium")
    for precision in ("medium", "highest") if asked == "auto" else (asked,):
        torch.set_float32_matmul_precision(precision)
        error = float(((a @ b).double() - exact).norm() / exact.norm())
        if error < EXACT:
            break
    return precision, error


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Products, convolutions included, at full float32 precision while it lasts."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


def autocast(asked: bool | Literal["force"], device: torch.device) -> torch.autocast | None:
    """Products of an update in bfloat16, its losses and weights in float32; None where not asked for.

    Relative error of a product: 3e-3.

    Args:
        asked: `force`: also where the hardware has no bfloat16, and is many times slower with it.
        device: where it computes.

    Raises:
        ConfigError: the hardware has no bfloat16.
    """
    if asked is True and not has_bfloat16(device):
        raise ConfigError(
            f"autocast=true: the hardware of {device} does not multiply bfloat16, which would be many times "
            "slower than float32. Leave autocast=false, or insist with autocast=force."
        )
    return torch.autocast(device.type, torch.bfloat16) if asked else None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.11 on
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
