"""From a work unit to its rows and its tally: decode what is encoded, ask the predictor, account for every item.

Nothing of Ray or of output files is in here. One bad item is one row with an error; N items give N rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import ImageBlankError, ImageError
from mnist_core.images import DecodedImage, ImageLimits, decode_image, prepare_images
from mnist_core.inputs.plan import Unit
from mnist_core.inputs.readers import ItemBatch, read_unit
from mnist_core.plain_png import decode_plain_pngs
from mnist_core.predictor import Predictor
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES

OK: Final = "ok"
FAILED: Final = "error"
FIRST_FRAME: Final = "first_frame_only"
"""Code of the remark that an animated image got its digit from its first frame."""

BATCH_SIZE: Final = 2000
"""Items scored at once, fewer where they are large: plain PNG files decoded 2,000 at once take half as long as 500."""

MANY: Final = 256
"""Encoded images from which on it pays to decode the plain ones together."""

_BLANK: Final = (ImageBlankError.code, "expected a digit, found an image without ink")
EXAMPLES: Final = 5
"""Bad items that a tally names."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What is said of some items, in their order; columns of one length.

    Attributes:
        ids: Where each item came from.
        digits: int8 (N,); -1 where there is an error.
        confidences: float32 (N,), the probability of that digit; not a number where there is an error.
        probabilities: float32 (N, 10).
        rejected: bool (N,), a digit is given but it does not look like one.
        codes: An error's code, or that of a remark (``first_frame_only``), or None.
        messages: What to read about it, or None.
        labels: The true digits, where they are known.
    """

    ids: list[str]
    digits: npt.NDArray[np.int8]
    confidences: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    rejected: npt.NDArray[np.bool_]
    codes: list[str | None]
    messages: list[str | None]
    labels: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Which items have an error and no digit: bool (N,)."""
        return self.digits < 0


def _no_digits() -> list[int]:
    return [0] * NUM_CLASSES


def _no_confusion() -> list[list[int]]:
    return [[0] * NUM_CLASSES for _ in range(NUM_CLASSES)]


@dataclass
class Tally:
    """Exact counts over rows; ``tally.add(other)`` counts both. Plain values that JSON can hold.

    Attributes:
        items: Rows.
        errors: Rows with an error, by code.
        remarks: Rows with a digit and a remark, by code.
        digits: Rows by digit.
        rejected: Rows whose digit does not look like one.
        confusion: Rows with a digit and a known true one, by truth (row) and digit (column).
        examples: The first bad items: ``id``, ``code``, ``error``.
    """

    items: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    digits: list[int] = field(default_factory=_no_digits)
    rejected: int = 0
    confusion: list[list[int]] = field(default_factory=_no_confusion)
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def num_errors(self) -> int:
        """Rows with an error."""
        return sum(self.errors.values())

    def count(self, rows: Rows) -> None:
        """Count some rows."""
        scored = ~rows.failed
        truth = np.array([-1 if label is None else label for label in rows.labels], np.int8)
        known = scored & (truth >= 0)
        confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
        np.add.at(confusion, (truth[known], rows.digits[known]), 1)
        errors: Counter[str] = Counter()
        remarks: Counter[str] = Counter()
        examples: list[dict[str, str]] = []
        for index, code in enumerate(rows.codes):
            if code is None:
                continue
            (remarks if scored[index] else errors)[code] += 1
            if not scored[index] and len(examples) < EXAMPLES:
                examples.append({"id": rows.ids[index], "code": code, "error": rows.messages[index] or ""})
        digits = np.bincount(rows.digits[scored], minlength=NUM_CLASSES)
        rejected = int(np.count_nonzero(rows.rejected))
        self.add(Tally(len(rows), dict(errors), dict(remarks), digits.tolist(), rejected, confusion.tolist(), examples))

    def add(self, other: Tally) -> None:
        """Count what another tally has counted."""
        self.items += other.items
        self.errors = dict(Counter(self.errors) + Counter(other.errors))
        self.remarks = dict(Counter(self.remarks) + Counter(other.remarks))
        self.digits = np.add(self.digits, other.digits).tolist()
        self.rejected += other.rejected
        self.confusion = np.add(self.confusion, other.confusion).tolist()
        self.examples = [*self.examples, *other.examples][:EXAMPLES]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tally:
        """Undo ``to_dict``."""
        return cls(**{each.name: values[each.name] for each in fields(cls)})


def score_unit(unit: Unit, predictor: Predictor, limits: ImageLimits) -> Iterator[Rows]:
    """Read a work unit and score its items, in batches.

    Args:
        unit: From ``mnist_core.inputs.plan``.
        predictor: Pixels to digits.
        limits: What an encoded image may be.

    Yields:
        One row an item, in the order of the unit.

    Raises:
        StorageError: A bucket cannot be reached, or there is no room to unpack an array.
    """
    for batch in read_unit(unit, max_image_bytes=limits.max_bytes, batch_size=BATCH_SIZE):
        yield score_batch(batch, predictor, limits)


def score_batch(batch: ItemBatch, predictor: Predictor, limits: ImageLimits) -> Rows:
    """Score some items; each gets a digit or an error."""
    codes: list[str | None] = [None] * len(batch)
    messages: list[str | None] = [None] * len(batch)
    if batch.images is not None:
        pixels, blank = prepare_images(batch.images)
        good = np.flatnonzero(~blank)
        for index in np.flatnonzero(blank):
            codes[index], messages[index] = _BLANK
        pixels = pixels[good] if blank.any() else pixels
    else:
        assert batch.contents is not None
        good, pixels = _decode(batch.contents, limits, codes, messages)
    predictions = predictor.predict(pixels)
    rows = Rows(
        ids=batch.ids,
        digits=np.full(len(batch), -1, np.int8),
        confidences=np.full(len(batch), np.nan, np.float32),
        probabilities=np.full((len(batch), NUM_CLASSES), np.nan, np.float32),
        rejected=np.zeros(len(batch), np.bool_),
        codes=codes,
        messages=messages,
        labels=batch.labels,
    )
    rows.digits[good] = predictions.digits
    rows.confidences[good] = predictions.confidences
    rows.probabilities[good] = predictions.probabilities
    rows.rejected[good] = predictions.rejected
    return rows


def _decode(
    contents: list[bytes | ImageError], limits: ImageLimits, codes: list[str | None], messages: list[str | None]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """Decode what can be decoded; of the rest, note why not. Returns indices (M,) and their pixels (M, 28, 28)."""
    pixels = np.empty((len(contents), *IMAGE_SIZE), np.uint8)
    decoded = np.zeros(len(contents), np.bool_)
    rest: Iterable[int] = range(len(contents))
    if len(contents) >= MANY and limits.max_pixels >= pixels[0].size:
        within = (each if isinstance(each, bytes) and len(each) <= limits.max_bytes else None for each in contents)
        plain, their_pixels = decode_plain_pngs(list(within))
        pixels[plain], blank = prepare_images(their_pixels)
        decoded[plain] = ~blank
        for index in plain[blank]:
            codes[index], messages[index] = _BLANK
        rest = np.delete(np.arange(len(contents)), plain).tolist()
    for index in rest:
        try:
            image = _decode_one(contents[index], limits)
        except ImageError as err:
            codes[index], messages[index] = err.code, str(err)
            continue
        if image.num_frames > 1:
            codes[index] = FIRST_FRAME
            messages[index] = describe_frames(image.num_frames)
        pixels[index], decoded[index] = image.pixels, True
    good = np.flatnonzero(decoded)
    return good, pixels if len(good) == len(pixels) else pixels[good]


def describe_frames(num_frames: int) -> str:
    """The remark on an image of several frames, whose first was taken."""
    return f"found {num_frames} frames, expected one: the first was taken"


def _decode_one(content: bytes | ImageError, limits: ImageLimits) -> DecodedImage:
    if isinstance(content, ImageError):
        raise content
    return decode_image(content, limits)
