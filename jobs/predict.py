"""``mnist predict``: the digit of single images, in this process; the same decoder and Predictor as the batch job's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from mnist_core.config import PredictConfig
from mnist_core.errors import ImageError, ItemUnreadableError
from mnist_core.images import ImageLimits
from mnist_core.inputs.readers import ItemBatch
from mnist_core.predictor import load_predictor
from mnist_core.registry import open_model
from mnist_core.scoring import FAILED, OK, Rows, score_batch
from mnist_core.storage import open_storage

STANDARD_INPUT = "-"


def run(config: PredictConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object: ``model_version`` and ``images``, one object each in the order asked: ``file``, ``digit``,
        ``confidence``, ``probabilities``, ``rejected``, ``status``, ``error_code`` and ``error``; and ``problem`` if
        there is an image without a digit.

    Raises:
        ArtifactError: The model is broken.
        ModelNotFoundError: There is no such model.
    """
    artifact = open_model(open_storage(config.storage), config.model)
    predictor = load_predictor(artifact.files, device=config.device, precision=config.precision, threads=config.threads)
    limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
    contents = [_read(name, limits.max_bytes) for name in config.images]
    rows = score_batch(ItemBatch(config.images, [None] * len(contents), None, contents), predictor, limits)
    images = [_describe(rows, index) for index in range(len(rows))]
    failed = [rows.ids[index] for index in np.flatnonzero(rows.failed)]
    problem = {"problem": f"{len(failed)} of {len(images)} images have no digit: {', '.join(failed)}"} if failed else {}
    return {"model_version": f"{artifact.manifest.name}/{artifact.manifest.version}", "images": images, **problem}


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    width = max(len("file"), *(len(image["file"]) for image in result["images"]))
    lines = [f"{'file':<{width}}  digit  confidence  rejected"]
    for image in result["images"]:
        if image["status"] == FAILED:
            lines.append(f"{image['file']:<{width}}      -           -  {image['error_code']}: {image['error']}")
            continue
        remark = f"  {image['error_code']}" if image["error_code"] else ""
        rejected = "yes" if image["rejected"] else "no"
        answer = f"{image['digit']:>5}  {image['confidence']:>10.2%}  {rejected:<8}{remark}"
        lines.append(f"{image['file']:<{width}}  {answer}".rstrip())
    return "\n".join([*lines, "", f"model {result['model_version']}"])


def _describe(rows: Rows, index: int) -> dict[str, Any]:
    """One image's row as JSON values; what an image without a digit has not is null."""
    scored = not rows.failed[index]
    return {
        "file": rows.ids[index],
        "digit": int(rows.digits[index]) if scored else None,
        "confidence": float(rows.confidences[index]) if scored else None,
        "probabilities": rows.probabilities[index].tolist() if scored else None,
        "rejected": bool(rows.rejected[index]) if scored else None,
        "status": OK if scored else FAILED,
        "error_code": rows.codes[index],
        "error": rows.messages[index],
    }


def _read(name: str, max_bytes: int) -> bytes | ImageError:
    """Read a file or standard input, no more than tells that it is too large."""
    try:
        if name == STANDARD_INPUT:
            return sys.stdin.buffer.read(max_bytes + 1)
        with Path(name).open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        return ItemUnreadableError(f"{name}: expected an image file, found that it cannot be read: {reason}")
