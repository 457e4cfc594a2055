"""The Open Inference Protocol V2 as its public client speaks it: tritonclient, unchanged, over HTTP and gRPC.

The client gets bit for bit what our Predictor says. It is installed beside the project's environment at first use.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from own_environment import environment
from PIL import Image
from serving import Endpoint, serving

from mnist_core.predictor import Predictions, load_predictor
from mnist_core.registry import open_model
from mnist_core.storage import open_storage

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
OUTPUTS = ("probabilities", "digit", "confidence", "rejected")


@pytest.fixture(scope="module")
def endpoint(model_storage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving(model_storage, tmp_path_factory.mktemp("serve"), "--max-replicas", "1") as running:
        yield running


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    images = np.random.default_rng(3).integers(0, 256, (40, 28, 28)).astype(np.uint8)
    images[:, 0] = 0  # white on black
    return images


@pytest.fixture(scope="module")
def expected(model_storage: str, images: np.ndarray) -> Predictions:
    files = open_model(open_storage(model_storage), "mnist").files
    return load_predictor(files, device="cpu").predict(images)


@pytest.fixture(scope="module")
def answers(
    endpoint: Endpoint, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """What the client was told, and the arrays that it got by way and output."""
    folder = tmp_path_factory.mktemp("client")
    encoded = [encode(image) for image in images]
    files = np.zeros((len(encoded), max(map(len, encoded))), np.uint8)
    for row, file in zip(files, encoded, strict=True):
        row[: len(file)] = np.frombuffer(file, np.uint8)
    np.savez(folder / "inputs.npz", images=images, files=files, lengths=[len(file) for file in encoded])
    addresses = [urlsplit(endpoint.http).netloc, endpoint.ready["grpc"]]
    command = [
        environment("tritonclient") / "python",
        HERE / "tritonclient_process.py",
        *addresses,
        folder / "inputs.npz",
        folder / "out.npz",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(folder / "out.npz") as arrays:
        for key in arrays.files:
            way, _, name = key.partition("/")
            found.setdefault(way, {})[name] = arrays[key]
    return json.loads(done.stdout), found


def encode(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def test_every_way_gets_what_the_predictor_says_bit_for_bit(answers, expected):
    wanted = {
        "probabilities": expected.probabilities,
        "digit": expected.digits.astype(np.int64),
        "confidence": expected.confidences,
        "rejected": expected.rejected,
    }
    _, found = answers
    assert len(found) == 4 * 4 + 4 * 2
    for way, arrays in found.items():
        assert list(arrays) == (["digit"] if way.endswith("digit") else list(OUTPUTS)), way
        for name, values in arrays.items():
            assert (values.dtype, values.shape) == (wanted[name].dtype, wanted[name].shape), (way, name)
            assert values.tobytes() == wanted[name].tobytes(), (way, name)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_understands_what_the_server_says_of_itself(answers, protocol):
    told = answers[0][protocol]
    assert [told[name] for name in ("live", "ready", "model ready", "version ready")] == [True] * 4
    assert told["server"]["name"] == "mnist-on-ray"
    assert told["server"]["extensions"] == ["binary_tensor_data"]
    assert told["model"]["name"] == "mnist"
    assert told["model"]["versions"] == ["1"]
    assert [(each["name"], each["datatype"]) for each in told["model"]["inputs"]] == [("images", "UINT8")]
    assert [each["name"] for each in told["model"]["outputs"]] == list(OUTPUTS)
    response = told["response"]
    assert (response["model_name"], response["model_version"], response["id"]) == ("mnist", "1", "seven")


@pytest.mark.parametrize(
    ("protocol", "bad", "not_found"),
    [("http", "400", "404"), ("grpc", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")],
)
def test_the_client_is_told_what_was_wrong(answers, protocol, bad, not_found):
    told = answers[0][protocol]
    expected = {
        "blank": (bad, "image 1: expected a digit, found an image without ink; send the other 39 without it"),
        "files": (bad, "image 0: received no bytes"),
        "shape": (bad, "inputs[0].shape: received [40, 5, 28], expected [N, 28, 28]"),
        "output": (bad, "outputs[0].name: received 'logits', expected one of probabilities"),
        "model": (not_found, "model: received 'other', expected 'mnist'"),
    }
    for what, (status, text) in expected.items():
        assert told["refused"][what][0] == status, told["refused"][what]
        assert text in told["refused"][what][1]
    assert told["other model"][0] == told["other version"][0] == not_found
    assert "no version '77'" in told["other version"][1]
