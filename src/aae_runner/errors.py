"""What can go wrong, as sentences, each with the exit status of the command that it ends."""


class AAEError(Exception):
    """An error whose message is written for the user: what was wrong, what is allowed, what to do next."""

    status = 1


class ConfigError(AAEError):
    """The configuration asks for something that does not exist or cannot be."""

    status = 2


class DataError(AAEError):
    """A data set is missing, damaged, or not what its yaml says.

    Args:
        problem: what is wrong, a sentence.
        remedy: what to do, a sentence or more; it may be part of the problem's text.
    """

    status = 3

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".rstrip())  # a copy from another process has one text alone
        self.problem, self.remedy = problem, remedy


class CheckpointError(AAEError):
    """No saved state can be read, or it belongs to another run."""

    status = 4


class NumericalError(AAEError):
    """A loss is not a finite number."""

    status = 5


class DiskError(AAEError):
    """A file cannot be written."""

    status = 6


class RunInUseError(AAEError):
    """Another process trains in the same run folder."""

    status = 7


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop; its state is saved.

    A `KeyboardInterrupt`, so that it alone also ends a sweep. `status` is 128 plus the signal's number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)  # all arguments, so that it can be sent between processes
        self.status = 128 + signal_number

    def __str__(self) -> str:
        return str(self.args[0])
