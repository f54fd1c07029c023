"""What a signal to stop does: in the midst of a step it waits, elsewhere it interrupts."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from aae_runner.errors import Interrupted

_ALWAYS = signal.SIGINT, signal.SIGTERM
_WARNINGS = signal.SIGUSR1, signal.SIGUSR2  # of a cluster, before it takes a job away


class Stop:
    """Remembers a signal to stop, or interrupts where that is safe; the same one again ends the program.

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
        self.received = self.received or number
        signal.signal(number, signal.SIG_DFL)
        if self._message is not None:
            raise Interrupted(self._message, number)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 into a `Stop`.

    Where a launcher has its own handler of a cluster's warning, that is called once the state is saved: it
    puts the job back into its queue and leaves.
    """
    stop = Stop()
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread (a notebook's, say): not ours to handle
        for known in (*_ALWAYS, *_WARNINGS):
            if known in _ALWAYS or signal.getsignal(known) not in (signal.SIG_IGN, None):
                before[known] = signal.signal(known, stop._handle)
    try:
        yield stop
    except Interrupted:
        if stop.received in _WARNINGS and callable(handler := before[stop.received]):
            handler(stop.received, None)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
