"""What the OpenAPI document says is what the endpoint does: schemathesis finds no difference, and nothing that fails.

It sends what the document allows and what it does not, to every operation of a real ``mnist serve`` that asks for API
keys, and looks at statuses, content types, headers and schemas of the answers. It is installed beside the project's
environment at first use.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from own_environment import environment
from serving import serving

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
KEY = "key-of-the-tests"


def test_schemathesis_finds_nothing(model_storage: str, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    with serving(model_storage, tmp_path, "--api-key-file", str(keys)) as endpoint:
        program = str(environment("schemathesis") / "schemathesis")
        command = [program, "--config-file", str(HERE / "schemathesis.toml"), "run"]
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
