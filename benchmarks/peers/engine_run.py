"""One engine's images per second: ``engine_run.py ENGINE FOLDER SECONDS SIZE ...`` on all cores of this machine.

``ours`` and ``ours-int8`` ask our Predictor, the others get the whole batch at once, the way their manuals say. Each
batch size is warmed up and then measured for so many seconds. Printed is one JSON object: images per second by batch
size, and the answers to eight images, by which the engines are seen to run one and the same network.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CORES = os.cpu_count() or 1
Run = Callable[[Any], tuple[Any, Any]]


def ours(folder: Path, _size: int, precision: str = "float32") -> Run:
    """Our Predictor; what it tells of strangeness is whether it is above 1."""
    from mnist_core.predictor import load_predictor

    files = {path.name: path.read_bytes() for path in folder.glob("*.tflite")}
    predictor = load_predictor(files, device="cpu", precision=precision)

    def run(images: Any) -> tuple[Any, Any]:
        predictions = predictor.predict(images)
        return predictions.probabilities, predictions.rejected

    return run


def ours_int8(folder: Path, size: int) -> Run:
    """Our Predictor with integers."""
    return ours(folder, size, "int8")


def litert(folder: Path, size: int, file: str = "model.tflite") -> Run:
    """Bare LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(folder / file), num_threads=CORES)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, (size, 28, 28))
    interpreter.allocate_tensors()
    outputs = [output["index"] for output in interpreter.get_output_details()]

    def run(images: Any) -> tuple[Any, Any]:
        interpreter.set_tensor(index, images)
        interpreter.invoke()
        return interpreter.get_tensor(outputs[0]), interpreter.get_tensor(outputs[1])

    return run


def litert_int8(folder: Path, size: int) -> Run:
    """Bare LiteRT with integers."""
    return litert(folder, size, "model.int8.tflite")


def onnxruntime(folder: Path, _size: int) -> Run:
    """ONNX Runtime with its own defaults, which are all cores."""
    import onnxruntime as ort

    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(["probabilities", "strangeness"], {"images": images}))


def openvino(folder: Path, size: int) -> Run:
    """OpenVINO compiled for this batch size; its hint for latency is the one that gives one request all cores."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(folder / "model.onnx")
    model.reshape([size, 28, 28])
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(images: Any) -> tuple[Any, Any]:
        answers = request.infer([images])
        return answers["probabilities"], answers["strangeness"]

    return run


ENGINES: dict[str, Callable[[Path, int], Run]] = {
    "ours": ours,
    "ours-int8": ours_int8,
    "litert": litert,
    "litert-int8": litert_int8,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def main(engine: str, folder: Path, seconds: float, sizes: list[int]) -> None:
    """Measure and print."""
    rng = np.random.default_rng(1)
    rates = {}
    for size in sizes:
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        run = ENGINES[engine](folder, size)
        rates[size] = measure(run, images, seconds / 4) and measure(run, images, seconds)
    images = np.random.default_rng(2).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    probabilities, strangeness = ENGINES[engine](folder, 8)(images)
    rejected = np.asarray(strangeness) > 1 if np.asarray(strangeness).dtype != np.bool_ else np.asarray(strangeness)
    answers = {"probabilities": np.asarray(probabilities).tolist(), "rejected": rejected.tolist()}
    print(json.dumps({"rates": rates, **answers}))


def measure(run: Run, images: Any, seconds: float) -> float:
    """Images per second."""
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not count:
        run(images)
        count += len(images)
    return count / passed


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), [int(size) for size in sys.argv[4:]])
