"""What a protocol is asked and answers: one request and one reply, free of any web framework.

Every protocol is a function from a ``Call`` to a ``Reply``. The short way into a replica (``serve.lane``) and the web
application (``serve.web``) call the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mnist_core.errors import RequestTooLargeError
from mnist_core.splits import IMAGE_SIZE

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"

_PIXELS: Final = IMAGE_SIZE[0] * IMAGE_SIZE[1]
_MOST_MARKS: Final = {b"[": 1 + IMAGE_SIZE[0] + _PIXELS, b"{": 2, b",": _PIXELS}
"""What one image can have of these at most: as rows of lists of one pixel, as an object in an object, as numbers."""
_SPARE_MARKS: Final = 1000


@dataclass(slots=True)
class Call:
    """One request, its body read.

    Attributes:
        body: The content.
        headers: Lower-case name to value.
        query: What follows the question mark.
        version: The model's version that the path names; None for the current one.
        deadline: When the answer is of no use any more, by ``time.monotonic``.
        request_id: The client's name for it, or ours.
    """

    body: bytes
    headers: Mapping[bytes, bytes]
    query: bytes = b""
    version: str | None = None
    deadline: float = float("inf")
    request_id: str = ""

    def header(self, name: bytes) -> bytes:
        """A header's value; empty if it is not there."""
        return self.headers.get(name, b"")


@dataclass(slots=True)
class Reply:
    """One answer.

    Attributes:
        body: The content.
        status: The HTTP status.
        content_type: What the content is.
        headers: Further headers, lower-case.
        code: Of the error, if it is one.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    code: str = ""


def json_reply(value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = (), code: str = "") -> Reply:
    """Answer with JSON; numpy arrays are written as lists, and float32 with no more digits than it has."""
    return Reply(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, JSON, headers, code)


def read_json(body: bytes, most_images: int) -> Any:
    """Read a JSON body that holds images.

    It is refused unread if it has more values than so many images: 32 MB of ``[],`` cost the parser 7 s and a gigabyte.

    Args:
        body: The JSON.
        most_images: That a request may have.

    Raises:
        RequestTooLargeError: It holds more.
        ValueError: It is no JSON; says where.
    """
    for mark, most in _MOST_MARKS.items():
        if body.count(mark) > most * most_images + _SPARE_MARKS:
            raise RequestTooLargeError(
                f"body: received more {mark.decode()!r} than {most_images} images have, expected at most so many "
                "images in a request; send several"
            )
    return orjson.loads(body)
