"""What takes minutes and gigabytes: run it with `pytest -m large`."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from conftest import TINY

pytestmark = pytest.mark.large

OFFICIAL = {"train": 73_257, "extra": 531_131, "test": 26_032}
"""Images of SVHN."""


def write_mat(path: Path, n: int) -> None:
    """n pictures of one shade each, in the layout of SVHN; scipy would hold them all, and more than once."""
    header = b"constructed".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")
    labels = (np.arange(n) % 10 + 1).astype(np.uint8).reshape(-1, 1)
    scipy.io.savemat(path, {"y": labels}, do_compression=True)
    y = path.read_bytes()[128:]
    size = 3072 * n
    described = struct.pack("<6i", 6, 8, 9, 0, 5, 16) + struct.pack("<4i", 32, 32, 3, n)
    described += struct.pack("<i4s", 1 << 16 | 1, b"X") + struct.pack("<2i", 2, size)
    squeeze = zlib.compressobj(1)
    content = bytearray(squeeze.compress(struct.pack("<2I", 14, len(described) + size) + described))
    for start in range(0, n, 10_000):
        shades = np.arange(start, min(start + 10_000, n), dtype=np.int64).astype(np.uint8)
        content += squeeze.compress(np.repeat(shades, 3072).tobytes())
    content += squeeze.flush()
    path.write_bytes(header + struct.pack("<2I", 15, len(content)) + content + y)


def test_svhn_of_official_size_with_its_extra_part_trains_within_3_gigabytes(tmp_path: Path) -> None:
    for part, n in OFFICIAL.items():
        write_mat(tmp_path / f"{part}_32x32.mat", n)
    process = subprocess.Popen(
        [sys.executable, "-m", "aae_runner", "data=svhn", f"data.root={tmp_path}", "data.checksums=false",
         "data.extra=true", "schedule.batch=200", "schedule.epochs=1", *TINY, f"runs={tmp_path / 'runs'}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or it would be waited for again
    assert process.returncode == 0
    assert usage.ru_maxrss * 1024 < 3e9, f"{usage.ru_maxrss * 1024 / 1e9:.2f} GB"
