"""The files of a ``multipart/form-data`` body (RFC 7578), which is whole in memory and bounded already."""

from __future__ import annotations

from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from mnist_core.errors import RequestError, RequestTooLargeError

LONGEST_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""


def read_files(body: bytes, parameters: bytes, most: int) -> list[bytes]:
    """Read the content of every part, in order; names of parts and of files mean nothing.

    Args:
        body: The whole body.
        parameters: Of the content type: ``boundary=...``.
        most: How many parts there may be.

    Raises:
        RequestError: It is not such a body, or has no part.
        RequestTooLargeError: It has more parts.
    """
    boundary = parse_options_header(b"multipart/form-data;" + parameters)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= LONGEST_BOUNDARY:
        raise RequestError("content-type: expected multipart/form-data with a boundary of 1 to 70 characters")
    parts: list[bytearray] = []
    ended = False

    def begin() -> None:
        if len(parts) == most:
            raise RequestTooLargeError(f"received more than {most} images, expected at most these in a request")
        parts.append(bytearray())

    def end() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_part_data": lambda data, first, last: parts[-1].extend(data[first:last]),
            "on_end": end,
        },
    )
    try:
        parser.write(body)
    except MultipartParseError as err:
        raise RequestError(f"body: received no multipart/form-data ({err})") from err
    if not ended:
        raise RequestError("body: received multipart/form-data that is cut off, expected its closing boundary")
    if not parts:
        raise RequestError("body: received multipart/form-data without a part, expected an image in each")
    return [bytes(part) for part in parts]
