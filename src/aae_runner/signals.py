"""What a signal to stop does: in the midst of a step it waits, elsewhere it interrupts."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from aae_runner.errors import Interrupted

_ALWAYS = signal.SIGINT, signal.SIGTERM
_IF_FREE = signal.SIGUSR1, signal.SIGUSR2  # a cluster's warning; some launchers have handlers of their own


class Stop:
    """Remembers the first signal to stop, or interrupts where that is safe; a second one ends the program.

    Attributes:
        received: the first signal's number; None: none came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._message: str | None = None

    @contextlib.contextmanager
    def interrupts(self, message: str) -> Iterator[None]:
        """While it lasts, a signal raises at once; for work that leaves nothing half done.

        Args:
            message: what stopped, and how it goes on.

        Raises:
            Interrupted: a signal came, now or before.
        """
        before, self._message = self._message, message
        try:
            if self.received is not None:
                raise Interrupted(message, self.received)
            yield
        finally:
            self._message = before

    def _handle(self, number: int, frame: Any) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)
        if self._message is not None:
            raise Interrupted(self._message, number)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM, and SIGUSR1 and SIGUSR2 where nobody handles them, into a `Stop`."""
    stop, before = Stop(), {}
    with contextlib.suppress(ValueError):  # not in the main thread (a notebook's, say): not ours to handle
        for number in (*_ALWAYS, *_IF_FREE):
            if number in _ALWAYS or signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop._handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
