"""Looks for known vulnerabilities in the very versions that this installation runs on.

    python scripts/audit.py            # compare what is installed with requirements.lock, and audit that
    python scripts/audit.py --write    # first write requirements.lock anew, from what is installed

requirements.lock names every package that aae-runner needs, and those that they need, each with one version.
`pip-audit` (pip install pip-audit) asks the Python Packaging Advisory Database, so it needs the network.
"""

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
HEAD = "# Written by scripts/audit.py --write: what aae-runner runs on, all of it, each with one version.\n"


def needed(name: str = "aae-runner") -> dict[str, str]:
    """The packages that one needs, and those that they need: by name, their installed versions."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or []:
            requirement = Requirement(text)
            one = canonicalize_name(requirement.name)
            if one in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            try:  # without a local part such as +cpu: an advisory names the public version
                found[one] = distribution(one).version.partition("+")[0]
            except PackageNotFoundError:
                sys.exit(f"{one}: not installed. Install the project first: pip install -e .")
            waiting.append(one)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write requirements.lock anew")
    given = parser.parse_args()
    lock = HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(needed().items()))
    if given.write:
        LOCK.write_text(lock, encoding="utf-8")
    elif LOCK.read_text(encoding="utf-8") != lock:
        print("requirements.lock is not what is installed here; --write would make it so.", file=sys.stderr)
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", str(LOCK)]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
