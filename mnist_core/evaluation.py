"""Metrics from exact counts: count each shard, add the counts, divide once at the end.

A ``Counts`` holds integers only, so shards add up to exactly the whole, in any order and however they were cut.
``Evaluation`` holds the metrics. Both come from probabilities and labels alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.predictor import Predictions, Predictor
from mnist_core.splits import NUM_CLASSES

NUM_BINS: Final = 15
"""Equal-width confidence bins of the calibration error, as in Guo et al. (2017)."""

SMALLEST_PROBABILITY: Final = 1e-7
"""The loss clips probabilities here, as Keras does, so that one certain mistake costs 16.1 and not infinity."""

_UNITS: Final = 2**32
"""Losses and confidences are added as integers of 1/2**32, since a sum of floats depends on its order. Rounding moves
a mean loss by less than 1.2e-10 and a float32 confidence not at all; int64 has room for 10**8 images a shard."""

_Z95: Final = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95% of it."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _no_confusion() -> Integers:
    return np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)


def _no_bins() -> Integers:
    return np.zeros(NUM_BINS, np.int64)


@dataclass(frozen=True, eq=False)
class Counts:
    """What is counted of some images; ``a + b`` is what is counted of both.

    Attributes:
        confusion: int64 (10, 10), images by truth (row) and prediction (column).
        loss: Sum of the negative log likelihoods, in 1/2**32.
        bin_correct: int64 (15,), images predicted right, by confidence.
        bin_confidence: int64 (15,), sum of the confidences, in 1/2**32, by confidence.
    """

    confusion: Integers = field(default_factory=_no_confusion)
    loss: int = 0
    bin_correct: Integers = field(default_factory=_no_bins)
    bin_confidence: Integers = field(default_factory=_no_bins)

    def __add__(self, other: Counts) -> Counts:
        """Count both."""
        return Counts(
            self.confusion + other.confusion,
            self.loss + other.loss,
            self.bin_correct + other.bin_correct,
            self.bin_confidence + other.bin_confidence,
        )

    def evaluate(self) -> Evaluation:
        """Divide.

        Raises:
            ValueError: No image was counted.
        """
        count, correct = int(self.confusion.sum()), int(np.trace(self.confusion))
        if not count:
            raise ValueError("counts: received no images, expected at least one to evaluate")
        hits, support, predicted = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return Evaluation(
            count=count,
            correct=correct,
            accuracy=correct / count,
            loss=self.loss / _UNITS / count,
            ece=float(np.abs(self.bin_correct - self.bin_confidence / _UNITS).sum() / count),
            confusion=self.confusion,
            precision=_ratio(hits, predicted),
            recall=_ratio(hits, support),
            f1=_ratio(2 * hits, predicted + support),
            support=support,
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model does on some images. A ratio whose divisor is 0 (a digit never predicted) is 0.

    Attributes:
        count: Images.
        correct: Images whose most probable digit is the true one.
        accuracy: correct / count.
        loss: Mean negative log likelihood of the truth, in nats, probabilities clipped at 1e-7.
        ece: Expected calibration error: mean distance of confidence and accuracy over 15 equal-width bins of the
            highest probability, weighted by images (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        confusion: int64 (10, 10), images by truth (row) and prediction (column).
        precision: float64 (10,), of the images predicted as a digit, the share that are one.
        recall: float64 (10,), of the images of a digit, the share predicted as one.
        f1: float64 (10,), harmonic mean of precision and recall.
        support: int64 (10,), images of each digit.
    """

    count: int
    correct: int
    accuracy: float
    loss: float
    ece: float
    confusion: Integers
    precision: Floats
    recall: Floats
    f1: Floats
    support: Integers

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, with the plain means over the digits as ``macro``."""
        ratios = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        per_class = [
            {"digit": digit, "support": int(support)} | {name: float(values[digit]) for name, values in ratios.items()}
            for digit, support in enumerate(self.support)
        ]
        return {
            "count": self.count,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "ece": self.ece,
            "macro": {name: float(values.mean()) for name, values in ratios.items()},
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
        }


def count_predictions(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]) -> Counts:
    """Count the predictions of some images.

    Args:
        probabilities: float32 (N, 10), each row summing to 1; N may be 0.
        labels: uint8 (N,), 0 to 9.

    Returns:
        The counts.

    Raises:
        ValueError: The shapes do not agree, or a probability is negative or not finite.
    """
    if probabilities.shape != (len(labels), NUM_CLASSES):
        raise ValueError(f"probabilities: received {probabilities.shape}, expected {(len(labels), NUM_CLASSES)}")
    if not (np.isfinite(probabilities) & (probabilities >= 0)).all():
        raise ValueError("probabilities: received values that are negative or not finite")
    predictions = probabilities.argmax(axis=1)
    cells = np.bincount(labels.astype(np.int64) * NUM_CLASSES + predictions, minlength=NUM_CLASSES**2)
    likelihoods = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(likelihoods, SMALLEST_PROBABILITY))
    confidences = probabilities.max(axis=1).astype(np.float64)
    bins = _bins(confidences)
    confidence_sums = _no_bins()
    np.add.at(confidence_sums, bins, _to_units(confidences))
    return Counts(
        confusion=cells.reshape(NUM_CLASSES, NUM_CLASSES),
        loss=int(_to_units(losses).sum()),
        bin_correct=np.bincount(bins[predictions == labels], minlength=NUM_BINS),
        bin_confidence=confidence_sums,
    )


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often a model is right, by how sure it is: one element for each bin of the calibration error.

    Attributes:
        counts: int64 (15,), images whose confidence is in the bin.
        confidence: float64 (15,), their mean confidence; 0 for a bin without images, as in all that follows.
        accuracy: float64 (15,), share of them predicted right.
        low: float64 (15,), lower end of the 95% interval of that share.
        high: float64 (15,), upper end.
        ece: Expected calibration error, as in ``Evaluation``.
    """

    counts: Integers
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    ece: float


def measure_reliability(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]) -> Reliability:
    """Compare confidence with accuracy, bin by bin.

    The intervals are Wilson's ("Probable Inference", 1927), which hold for few images and for shares near 1.

    Args:
        probabilities: float32 (N, 10), each row summing to 1; N at least 1.
        labels: uint8 (N,), 0 to 9.

    Raises:
        ValueError: As of ``count_predictions``, and if there are no images.
    """
    counted = count_predictions(probabilities, labels)
    counts = np.bincount(_bins(probabilities.max(axis=1).astype(np.float64)), minlength=NUM_BINS)
    accuracy = _ratio(counted.bin_correct, counts)
    images = np.maximum(counts, 1)
    centre = (accuracy + _Z95**2 / (2 * images)) / (1 + _Z95**2 / images)
    spread = np.sqrt(accuracy * (1 - accuracy) / images + _Z95**2 / (4 * images**2)) * _Z95 / (1 + _Z95**2 / images)
    return Reliability(
        counts=counts,
        confidence=counted.bin_confidence / _UNITS / images,
        accuracy=accuracy,
        low=np.where(counts, np.maximum(centre - spread, 0), 0),
        high=np.where(counts, np.minimum(centre + spread, 1), 0),
        ece=counted.evaluate().ece,
    )


def evaluate_model(
    predictor: Predictor, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> tuple[Evaluation, Predictions]:
    """Evaluate a model on labelled images.

    Args:
        predictor: The model.
        images: uint8 (N, 28, 28), N at least 1.
        labels: uint8 (N,), 0 to 9.

    Returns:
        The metrics, over all images whether rejected or not, and the predictions they come from.
    """
    predictions = predictor.predict(images)
    return count_predictions(predictions.probabilities, labels).evaluate(), predictions


def rank_mistakes(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return the indices of the images predicted wrong, the most confident mistake first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def _bins(confidences: Floats) -> Integers:
    """Bin m holds (m/15, (m+1)/15]: Guo et al. close the bins on the right."""
    return np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)


def _to_units(values: Floats) -> Integers:
    return np.rint(values * _UNITS).astype(np.int64)


def _ratio(part: Integers, whole: Integers) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
