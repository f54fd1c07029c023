"""A finished run's networks as torch.export programs, which run without this package."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aae_runner.disk import write
from aae_runner.finished import Finished


class _Encoder(nn.Module):
    def __init__(self, run: Finished) -> None:
        super().__init__()
        self.model, self.inferred, self.hidden = run.model, run.inferred, run.config.data["classes"]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        codes = self.model.encode(x, x.new_full(x.shape[:1], self.hidden, dtype=torch.int64))
        return {name: codes[name].value for name in self.inferred}


class _Decoder(nn.Module):
    def __init__(self, run: Finished) -> None:
        super().__init__()
        self.model = run.model

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return self.model.decode(values)


def export(run: Finished, output: Path) -> list[Path]:
    """Writes `<stem>.encoder.pt2` and, where the run decodes, `<stem>.decoder.pt2`; returns their paths.

    The encoder takes images (B, C, H, W), floats in [0, 1], and gives {head: (B, size)}, as
    `Finished.encode` does; the decoder takes {head: (B, size)} and gives images. B may be any number.

    Args:
        run: opened on the device on which the programs are to run.
        output: a name that ends in .pt2.

    Raises:
        DiskError: a file cannot be written.
    """
    batch = torch.export.Dim("batch")
    x = torch.zeros(2, *run.shape, device=run.device)
    programs = {"encoder": torch.export.export(_Encoder(run), (x,), dynamic_shapes=({0: batch},))}
    if run.model.decoder is not None:
        shapes: dict[str, Any] = {name: (2, head.size) for name, head in run.model.heads.items()}
        values = {name: torch.zeros(shape, device=run.device) for name, shape in shapes.items()}
        dynamic = ({name: {0: batch} for name in values},)
        programs["decoder"] = torch.export.export(_Decoder(run), (values,), dynamic_shapes=dynamic)
    paths = []
    for name, program in programs.items():
        content = io.BytesIO()
        torch.export.save(program, content)
        paths.append(output.with_suffix(f".{name}.pt2"))
        write(paths[-1], content.getvalue())
    return paths
