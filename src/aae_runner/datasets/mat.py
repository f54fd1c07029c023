"""Pictures out of a MATLAB 5 file, a block at a time: extra SVHN is too large to be held twice."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED, UINT8 = 14, 15, 9
"""Two types of elements, and a class of arrays."""
BLOCK = 256
"""Pictures read at a time."""


class _Element:
    """The bytes of an element, inflated where they are compressed.

    Args:
        file: behind the element's tag.
        order: of bytes, as `struct` names it.
        kind: its type.
        size: its bytes in the file.
    """

    def __init__(self, file: BinaryIO, order: str, kind: int, size: int) -> None:
        self._file, self._order, self._left = file, order, size
        self._inflate = zlib.decompressobj() if kind == COMPRESSED else None
        self.kind = self.numbers(2)[0] if kind == COMPRESSED else kind

    def read(self, n: int) -> bytes:
        """Exactly n bytes.

        Raises:
            ValueError: it has not so many.
        """
        found = bytearray()
        while len(found) < n:
            if self._inflate is None:
                part = self._take(n - len(found))
            else:
                part = self._inflate.decompress(
                    self._inflate.unconsumed_tail or self._take(1 << 20), n - len(found)
                )
            found += part
        return bytes(found)

    def numbers(self, n: int) -> tuple[int, ...]:
        """n integers of 32 bits."""
        return struct.unpack(f"{self._order}{n}i", self.read(4 * n))

    def finish(self) -> None:
        """Reads on to the checksum of what was compressed."""
        while self._inflate is not None and not self._inflate.eof:
            self._inflate.decompress(self._inflate.unconsumed_tail or self._take(1 << 20))

    def _take(self, most: int) -> bytes:
        content = self._file.read(min(most, self._left))
        if not content:
            raise ValueError("it ends too early")
        self._left -= len(content)
        return content


def pictures(path: Path, name: str) -> Iterator[NDArray[np.uint8]]:
    """The array (H, W, C, N) of uint8 called `name`, as blocks of pictures (n, C, H, W).

    In the file the first index runs fastest, so the bytes of a picture stand together.

    Raises:
        ValueError: there is no such array, or the file ends too early.
        zlib.error: the file is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:])
        if order is None:
            raise ValueError("it is no MATLAB 5 file")
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}ii", tag.ljust(8))
            end = file.tell() + size
            element = _Element(file, order, kind, size)
            found, shape = _described(element) if element.kind == MATRIX else ("", ())
            if found == name:
                height, width, channels, n = shape
                element.numbers(2)  # the tag of the pixels
                for start in range(0, n, BLOCK):
                    count = min(BLOCK, n - start)
                    content = np.frombuffer(element.read(count * channels * width * height), np.uint8)
                    yield content.reshape(count, channels, width, height).swapaxes(2, 3)
                element.finish()
                return
            file.seek(end)
    raise ValueError(f"it holds no array {name} of uint8 in four dimensions")


def _described(element: _Element) -> tuple[str, tuple[int, ...]]:
    """Name and shape of an array; an empty name where it is not of uint8 in four dimensions."""
    _, _, flags, _, _, size = element.numbers(6)
    if flags & 0xFF != UINT8 or size != 16:
        return "", ()
    shape = element.numbers(4)
    kind = element.numbers(1)[0]
    if kind >> 16:  # a name of at most four letters stands in its tag
        return element.read(4)[: kind >> 16].decode("latin-1"), shape
    size = element.numbers(1)[0]
    return element.read(size + -size % 8)[:size].decode("latin-1"), shape
