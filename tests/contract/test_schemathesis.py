"""What the OpenAPI document says is what the endpoint does: schemathesis finds no difference, and nothing that fails.

It sends what the document allows and what it does not, to every operation of a real ``mnist serve`` that asks for API
keys, and looks at statuses, content types, headers and schemas of the answers. It is installed beside the project's
environment at first use.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_requests import publish_model
from serving import serving

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-schemathesis.txt"
KEY = "key-of-the-tests"


@pytest.fixture(scope="module")
def schemathesis() -> str:
    """The command, whose environment is made if it is not there yet or no longer right."""
    folder = Path(sys.prefix, "schemathesis")
    stamp = folder / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(folder / "bin" / "pip"), "install", *quiet, "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(REQUIREMENTS.read_text())
    return str(folder / "bin" / "schemathesis")


def test_schemathesis_finds_nothing(schemathesis: str, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    storage = publish_model(tmp_path / "storage")
    with serving(storage, tmp_path, "--api-key-file", str(keys)) as endpoint:
        command = [schemathesis, "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"{endpoint.http}/openapi.json", "--header", f"Authorization: Bearer {KEY}"]
        done = subprocess.run(
            [*command, "--max-examples", "8", "--seed", "1", "--no-shrink"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "No issues found" in done.stdout
    assert "Tested: 16" in done.stdout
