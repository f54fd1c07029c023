"""How the jobs of a sweep ended: a line each in the sweep's folder, a table at its end."""

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from aae_runner.disk import unwritable


@dataclass
class Outcome:
    """How one job ended; its process writes it, whichever launcher started that."""

    job: int
    overrides: list[str]
    status: int = 0
    """The exit status that it would have had alone."""
    said: str = ""
    """What went wrong."""
    where: str = ""
    """The run folder, or where it failed the file that has the traceback."""
    objective: float | None = None
    """What a search lowers."""

    def append_to(self, folder: Path) -> None:
        """Adds a line to the record of a sweep; where it cannot be written, the job is what it was."""
        path = folder / "jobs.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a line that a full disk tore stays alone
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            with path.open("a", encoding="utf-8") as file:
                file.write("\n" * torn + json.dumps(asdict(self)) + "\n")
        except OSError as error:
            print(
                f"aae-run: {unwritable(path, error)} The closing table lacks job {self.job}.", file=sys.stderr
            )


def read_outcomes(folder: Path) -> list[Outcome]:
    """Of all jobs of a sweep that have ended, in their order."""
    path = folder / "jobs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    outcomes = []
    for line in lines:
        with contextlib.suppress(ValueError):  # torn, by a full disk
            outcomes.append(Outcome(**json.loads(line)))
    return sorted(outcomes, key=lambda one: one.job)


def print_outcomes(outcomes: list[Outcome]) -> None:
    """A table: job, what of its overrides is not every job's, outcome, where to look."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from aae_runner.report import show

    table = Table("job", "overrides", "outcome", "where to look", box=SIMPLE_HEAD, title="The sweep's jobs")
    for column in table.columns:
        column.overflow = "fold"  # a path that is cut leads nowhere
    shared = set[str]().union(*(one.overrides for one in outcomes))
    shared = shared.intersection(*(one.overrides for one in outcomes)) if len(outcomes) > 1 else set()
    for one in outcomes:
        done = "done" if one.objective is None else f"{one.objective:.4g}"
        outcome = done if one.status == 0 else f"status {one.status}: {one.said.split('. ')[0]}"
        own = " ".join(text for text in one.overrides if text not in shared)
        table.add_row(str(one.job), *(escape(text) for text in (own, outcome, one.where)))
    show(table)
