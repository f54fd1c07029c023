"""`python -m aae_runner` is `aae-run`."""

from aae_runner.cli import main

main()
