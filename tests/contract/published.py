"""What the tests of artifact, registry and command publish."""

from mnist_core.artifact import Manifest, publish_artifact
from mnist_core.storage import Storage

FILES = {"model.keras": b"keras" * 100, "model.tflite": b"", "plots/curves.png": b"png"}


def publish(storage: Storage, run_id="run", files=FILES, name="mnist", **changed) -> Manifest:
    about = {
        "config": {"learning_rate": 1e-3, "epochs": 10, "run": None},
        "dataset": {"name": "mnist", "counts": {"train": 60000}},
        "metrics": {"test": {"accuracy": 0.99, "loss": 0.03, "count": 10000}},
        "libraries": {"keras": "3.15.1"},
    }
    return publish_artifact(storage, name, files, run_id=run_id, **{**about, **changed})


def flip(data: bytes, position: int) -> bytes:
    """Change one bit of one byte."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
