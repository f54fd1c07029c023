"""An evaluator that lets a test end the real program at a moment that it chooses (`KILLER=<moment>`)."""

import os
import signal
from pathlib import Path
from typing import Any

from aae_runner.evaluators import Evaluator, Findings, Snapshot


class Killer(Evaluator):
    """Finds nothing; ends its own process where the environment says so.

    `look:N` kills it in the N-th look, `write:N` while the N-th saved state is written; `term:N` asks it to
    stop in the N-th look, `usr2:N` warns it there as a cluster does.
    """

    def __init__(self, model: Any, priors: Any, /, *, every: int | None) -> None:
        super().__init__(every)
        self.moment, _, number = os.environ.get("KILLER", ":0").partition(":")
        self.left = int(number)
        if self.moment == "write":
            self.fsync, os.fsync = os.fsync, self.kill_at_state

    def kill_at_state(self, fd: Any) -> None:
        if "/.step_" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            self.count(signal.SIGKILL)
        self.fsync(fd)

    def count(self, number: signal.Signals) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), number)

    def __call__(self, snapshot: Snapshot) -> Findings:
        if self.moment == "look":
            self.count(signal.SIGKILL)
        if self.moment == "term":
            self.count(signal.SIGTERM)
        if self.moment == "usr2":
            self.count(signal.SIGUSR2)
        return {"looks": 1.0}
