"""Which HTTP status an error has, and what its answer looks like: one table for every protocol."""

from __future__ import annotations

from typing import Final

from mnist_core.errors import (
    DeadlineError,
    ImageError,
    ImageTooManyBytesError,
    ImageTooManyDigitsError,
    ImageTooManyPixelsError,
    MethodNotAllowedError,
    MnistError,
    ModelNotFoundError,
    OverloadedError,
    PathNotFoundError,
    RequestError,
    RequestTooLargeError,
    UnauthorizedError,
    UnsupportedMediaError,
)
from serve.calls import Reply, json_reply

STATUS: Final[dict[type[MnistError], int]] = {
    RequestError: 400,
    ImageError: 400,
    UnauthorizedError: 401,
    ModelNotFoundError: 404,
    PathNotFoundError: 404,
    MethodNotAllowedError: 405,
    RequestTooLargeError: 413,
    ImageTooManyBytesError: 413,
    ImageTooManyDigitsError: 413,
    ImageTooManyPixelsError: 413,
    UnsupportedMediaError: 415,
    OverloadedError: 503,
    DeadlineError: 504,
}
"""By class; a class that is not here has its base's, and what has none is our fault: 500."""

RETRY_AFTER_S: Final = 1

_HEADERS: Final[dict[int, tuple[tuple[bytes, bytes], ...]]] = {
    401: ((b"www-authenticate", b"Bearer"),),
    503: ((b"retry-after", str(RETRY_AFTER_S).encode()),),
}


def status_of(err: Exception) -> int:
    """The HTTP status of an error."""
    return next((STATUS[cls] for cls in type(err).__mro__ if cls in STATUS), 500)


def headers_of(status: int) -> tuple[tuple[bytes, bytes], ...]:
    """What goes with an error of that status."""
    return _HEADERS.get(status, ())


def describe_error(err: Exception, request_id: str) -> tuple[int, str, str]:
    """HTTP status, code and message of an error; what is our fault is told in the log only."""
    status = status_of(err)
    if status == 500 or not isinstance(err, MnistError):
        return 500, "internal", f"the server failed; its log has the reason under the request id {request_id}"
    return status, err.code, str(err)


def error_reply(err: Exception, request_id: str) -> Reply:
    """Answer with an error as our own protocol tells it."""
    status, code, message = describe_error(err, request_id)
    error = {"code": code, "message": message, "request_id": request_id}
    return json_reply({"error": error}, status, headers_of(status), code)


def plain_error_reply(err: Exception, request_id: str) -> Reply:
    """Answer with an error as V2 and TensorFlow Serving tell it: its message and no more."""
    status, code, message = describe_error(err, request_id)
    return json_reply({"error": message}, status, headers_of(status), code)
