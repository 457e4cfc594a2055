"""From nothing to a served prediction: train briefly, score the test images, serve, ask in every protocol, stop.

``make demo`` runs it; every step is a command that is printed before it runs, to be copied. Everything it makes is in
one folder (``demo`` by default).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from mnist_core.datasets import load_dataset
from serve.protos import inference_pb2

FOLDER = Path("demo")


def main() -> None:
    """Run every step and say at the end what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist", help="what is learned (default mnist)")
    parser.add_argument("--epochs", default="1", help="how long (default 1)")
    options = parser.parse_args()
    started = time.monotonic()
    storage = ["--storage", str(FOLDER / "storage")]
    recipe = ["--dataset", options.dataset, "--recipe", "notebook", "--epochs", options.epochs]
    trained = mnist("train", *recipe, "--workers", "2", *storage)
    images, labels = write_pictures(options.dataset, 500)
    scored = mnist("score", str(FOLDER / "pictures"), str(FOLDER / f"scores-{int(time.time())}"), *storage)
    with serving(*storage) as endpoint:
        served = ask_everything(endpoint, images, labels)
    say("")
    say(f"trained  {trained['model']}/{trained['version']}: test accuracy {trained['test']['accuracy']:.2%}")
    say(f"scored   {scored['items']:,} pictures: accuracy {scored['accuracy']:.2%}, {scored['rejected']} rejected")
    for way, right in served.items():
        say(f"served   {way:<28} {right}")
    say(f"in {time.monotonic() - started:.0f} s; all of it is in {FOLDER}/, with a report.html beside the model")


def mnist(*words: str) -> dict[str, Any]:
    """Run one command to its end and read its result."""
    say(f"\n$ mnist {shlex.join(words)}")
    command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def write_pictures(dataset: str, count: int) -> tuple[Any, Any]:
    """Write test images as PNG files in folders named by their digit."""
    data = os.environ.get("MNIST_DATA_DIR")
    test = load_dataset(dataset, data_dir=Path(data) if data else None).test
    for index in range(count):
        folder = FOLDER / "pictures" / str(test.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[index]).save(folder / f"{index:05}.png")
    return test.images[:count], test.labels[:count]


@contextmanager
def serving(*flags: str) -> Iterator[dict[str, str]]:
    """Serve while the block runs; yields the addresses."""
    words = ["serve", "--port", "0", "--grpc-port", "0", *flags]
    say(f"\n$ mnist {shlex.join(words)}")
    command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit(process.wait() or 1)
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def ask_everything(endpoint: dict[str, str], images: Any, labels: Any) -> dict[str, str]:
    """Ask for the same images in every protocol; returns how many answers are right."""
    url, count = endpoint["http"], len(images)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28]}
    pixels, infer = images.tolist(), f"{url}/v2/models/mnist/infer"
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": images.nbytes}}]}).encode()
    ways: dict[str, Callable[[], Any]] = {
        "POST /predict, raw bytes": lambda: [
            each["digit"] for each in post(f"{url}/predict", images.tobytes())["predictions"]
        ],
        "V2 REST, JSON": lambda: v2_digits(post(infer, json.dumps({"inputs": [{**tensor, "data": pixels}]}).encode())),
        "V2 REST, binary": lambda: v2_digits(
            post(infer, header + images.tobytes(), inference_header_content_length=str(len(header)))
        ),
        "V2 gRPC": lambda: ask_grpc(endpoint["grpc"], images),
        "TensorFlow Serving REST": lambda: [
            each["digit"]
            for each in post(f"{url}/v1/models/mnist:predict", json.dumps({"instances": pixels}).encode())[
                "predictions"
            ]
        ],
    }
    say(f"\nasking {url} for {count} images in {len(ways)} ways")
    return {name: f"{np.mean(np.array(ask()) == labels):.2%} right" for name, ask in ways.items()}


def post(url: str, body: bytes, **headers: str) -> Any:
    """Ask over HTTP."""
    json_only = body[:1] == b"{" and not headers
    sent = {"content-type": "application/json" if json_only else "application/octet-stream"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, sent)) as answer:
        return json.load(answer)


def v2_digits(answer: Any) -> Any:
    """The digits in an answer of protocol V2."""
    return next(output["data"] for output in answer["outputs"] if output["name"] == "digit")


def ask_grpc(address: str, images: Any) -> Any:
    """Ask over gRPC."""
    messages: Any = inference_pb2
    request = messages.ModelInferRequest(model_name="mnist", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        answer = infer(request, timeout=60)
    position = [output.name for output in answer.outputs].index("digit")
    return np.frombuffer(answer.raw_output_contents[position], np.int64)


def say(line: str) -> None:
    """Tell people what is going on."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
