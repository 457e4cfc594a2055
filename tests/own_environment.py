"""Virtual environments beside the project's, for clients that cannot live in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def environment(name: str) -> Path:
    """The ``bin`` folder of an environment, which is made if it is not there yet or no longer right.

    Args:
        name: ``tests/contract/requirements-NAME.txt`` says what is in it.
    """
    requirements = Path(__file__).parent / "contract" / f"requirements-{name}.txt"
    folder = Path(sys.prefix, name)
    stamp, programs = folder / "requirements.txt", folder / "bin"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(programs / "pip"), "install", *quiet, "-r", str(requirements)], check=True)
        stamp.write_text(requirements.read_text())
    return programs
