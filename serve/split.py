"""Pictures of several digits, for requests that ask for ``split``: what is done with all pictures of one request.

A request may have as many digits as it may have images, and that is looked at twice: before the model is asked, by how
many digits there are at least, and when they are known. Of a digit the model sees several candidates, so these have a
limit too, in each picture and together; and they are shown to it a batch at a time, so that who asks for single images
waits for a batch at most, and never finds the queue full of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from mnist_core.candidates import Candidates, find_candidates, most_work
from mnist_core.cutting import Digits, choose_digits
from mnist_core.errors import DeadlineError, ImageError, RequestTooLargeError
from mnist_core.images import ImageLimits
from mnist_core.predictor import Predictions
from mnist_core.splits import IMAGE_SIZE
from serve.batching import Batcher, Model


def find_all(
    files: Sequence[bytes], limits: ImageLimits, most: int, most_together: int, deadline: float
) -> tuple[dict[int, Candidates], dict[int, ImageError]]:
    """Find all that may be a digit in pictures.

    Args:
        files: The pictures.
        limits: What is refused unread.
        most: Digits that a picture may have.
        most_together: Digits that all may have.
        deadline: By ``time.monotonic``; cutting takes longer than reading, so it is kept between two pictures too.

    Returns:
        By position, what was found, and what was wrong.

    Raises:
        DeadlineError: The time was over.
        RequestTooLargeError: There are certainly more digits together, or far more candidates than they may have.
    """
    found: dict[int, Candidates] = {}
    errors: dict[int, ImageError] = {}
    for index, data in enumerate(files):
        if time.monotonic() > deadline:
            raise DeadlineError(f"the request's time was over when {index} of {len(files)} pictures had been cut")
        try:
            found[index] = find_candidates(data, limits, most)
        except ImageError as err:
            errors[index] = err.with_traceback(None)  # whose frame holds errors, which would be a circle
            continue
        _check_count(sum(each.fewest for each in found.values()), most_together)
        _check_work(sum(len(each.pixels) for each in found.values()), most_together)
    return found, errors


async def ask_in_turn(
    found: Mapping[int, Candidates], batcher: Batcher, batch_size: int, model: Model, deadline: float
) -> Predictions:
    """Show all candidates to the model, one batch after the other: in between, all others get their turns.

    Args:
        found: Of ``find_all``.
        batcher: Asks the model.
        batch_size: Images of a batch.
        model: Who is to do it.
        deadline: By ``time.monotonic``.

    Returns:
        Of all candidates, one picture after the other.

    Raises:
        DeadlineError: The time was over.
        OverloadedError: Too many images wait.
    """
    pixels = np.concatenate([np.empty((0, *IMAGE_SIZE), np.uint8), *(each.pixels for each in found.values())])
    starts = range(0, max(1, len(pixels)), batch_size)
    parts = [await batcher.predict(pixels[start : start + batch_size], model, deadline) for start in starts]
    return Predictions(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.strangeness for part in parts])
    )


def choose_all(
    found: Mapping[int, Candidates],
    predictions: Predictions,
    errors: dict[int, ImageError],
    most: int,
    most_together: int,
) -> dict[int, Digits]:
    """Divide pictures into digits.

    Args:
        found: Of ``find_all``.
        predictions: What the model says of all candidates, one picture after the other.
        errors: Gets what is wrong with a picture that has too many digits.
        most: Digits that a picture may have.
        most_together: Digits that all may have.

    Raises:
        RequestTooLargeError: There are more digits together.
    """
    digits: dict[int, Digits] = {}
    first = 0
    for index, candidates in found.items():
        own = slice(first, first + len(candidates.pixels))
        first = own.stop
        theirs = Predictions(predictions.probabilities[own], predictions.strangeness[own])
        try:
            digits[index] = choose_digits(candidates, theirs, most)
        except ImageError as err:
            errors[index] = err.with_traceback(None)
    _check_count(sum(len(each) for each in digits.values()), most_together)
    return digits


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise RequestTooLargeError(
            f"found {count} digits or more, expected at most {most} in a request with split; send several"
        )


def _check_work(count: int, most: int) -> None:
    if count > most_work(most):
        raise RequestTooLargeError(
            f"found {count} places where a digit may be or more, expected at most {most_work(most)} in a request of "
            f"{most} digits; send several"
        )
