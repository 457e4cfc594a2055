"""``mnist predict``: the digit of single images, or all digits of pictures, in this process.

Decoder and Predictor are the batch job's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mnist_core.config import PredictConfig
from mnist_core.cutting import cut_picture
from mnist_core.errors import ImageError, ItemUnreadableError
from mnist_core.images import ImageLimits
from mnist_core.inputs.readers import ItemBatch
from mnist_core.predictor import Predictor, load_predictor
from mnist_core.registry import open_model
from mnist_core.scoring import BATCH_SIZE, FAILED, FIRST_FRAME, OK, Rows, describe_frames, score_batch
from mnist_core.storage import open_storage

STANDARD_INPUT = "-"

_BATCH_BYTES: Final = 2**24
"""Files are read until they have more together, and are then scored: photos have 3 to 10 MB each."""


def run(config: PredictConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object: ``model_version`` and ``images``, one object each in the order asked: ``file``, ``digit``,
        ``confidence``, ``probabilities``, ``rejected``, ``status``, ``error_code`` and ``error``; and ``problem`` if
        there is an image without a digit. With ``split``, an image has ``text`` and ``digits`` instead: of each digit
        ``line``, ``digit``, ``confidence``, ``probabilities``, ``rejected`` and ``box`` (``x``, ``y``, ``w``, ``h``).

    Raises:
        ArtifactError: The model is broken.
        ModelNotFoundError: There is no such model.
    """
    artifact = open_model(open_storage(config.storage), config.model)
    predictor = load_predictor(artifact.files, device=config.device, precision=config.precision, threads=config.threads)
    limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
    if config.split_digits:
        images = [
            _split(name, _read(name, limits.max_bytes), predictor, limits, config.max_digits) for name in config.images
        ]
    else:
        batches = _read_batches(config.images, limits.max_bytes)
        scored = (score_batch(batch, predictor, limits) for batch in batches)
        images = [_describe(rows, index) for rows in scored for index in range(len(rows))]
    failed = [image["file"] for image in images if image["status"] == FAILED]
    problem = {"problem": f"{len(failed)} of {len(images)} images have no digit: {', '.join(failed)}"} if failed else {}
    return {"model_version": artifact.manifest.reference, "images": images, **problem}


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    width = max(len("file"), *(len(image["file"]) for image in result["images"]))
    if "digits" in result["images"][0]:
        return _render_split(result, width)
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


def _render_split(result: dict[str, Any], width: int) -> str:
    """One row a digit, and below them what each file says."""
    lines = [f"{'file':<{width}}  number  digit  confidence  rejected     x     y     w     h"]
    texts = []
    for image in result["images"]:
        if image["status"] == FAILED:
            lines.append(
                f"{image['file']:<{width}}       -      -           -  {image['error_code']}: {image['error']}"
            )
            continue
        for number, each in enumerate(image["digits"], 1):
            box = "".join(f"{each['box'][side]:>6}" for side in "xywh")
            rejected = "yes" if each["rejected"] else "no"
            answer = f"{number:>6}  {each['digit']:>5}  {each['confidence']:>10.2%}  {rejected:<6}"
            lines.append(f"{image['file']:<{width}}  {answer}{box}")
        remark = f"  {image['error_code']}" if image["error_code"] else ""
        texts.append(f"{image['file']:<{width}}  {' '.join(image['text'].splitlines())}{remark}")
    return "\n".join([*lines, "", *texts, *([""] if texts else []), f"model {result['model_version']}"])


def _split(
    name: str, content: bytes | ImageError, predictor: Predictor, limits: ImageLimits, most: int
) -> dict[str, Any]:
    """Read all digits of one picture, as JSON values; one that has none has an error."""
    image: dict[str, Any] = {"file": name, "text": None, "digits": [], "status": OK, "error_code": None, "error": None}
    try:
        if isinstance(content, ImageError):
            raise content
        found = cut_picture(content, predictor, limits, most)
    except ImageError as err:
        return {**image, "status": FAILED, "error_code": err.code, "error": str(err)}
    if found.num_frames > 1:
        image["error_code"], image["error"] = FIRST_FRAME, describe_frames(found.num_frames)
    said = found.predictions
    digits = [
        {
            "line": int(found.lines[index]),
            "digit": int(said.digits[index]),
            "confidence": float(said.confidences[index]),
            "probabilities": said.probabilities[index].tolist(),
            "rejected": bool(said.rejected[index]),
            "box": dict(zip("xywh", found.boxes[index].tolist(), strict=True)),
        }
        for index in range(len(found))
    ]
    return {**image, "text": found.text, "digits": digits}


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


def _read_batches(names: Sequence[str], max_bytes: int) -> Iterator[ItemBatch]:
    """Read files, no more at once than are scored at once."""
    contents: list[bytes | ImageError] = []
    first = num_bytes = 0
    for index, name in enumerate(names, 1):
        content = _read(name, max_bytes)
        contents.append(content)
        num_bytes += len(content) if isinstance(content, bytes) else 0
        if len(contents) == BATCH_SIZE or num_bytes > _BATCH_BYTES or index == len(names):
            yield ItemBatch(list(names[first:index]), [None] * len(contents), None, contents)
            contents, first, num_bytes = [], index, 0


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
