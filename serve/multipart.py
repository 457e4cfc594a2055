"""The files of a ``multipart/form-data`` body (RFC 7578), which is whole in memory and bounded already."""

from __future__ import annotations

from email.message import Message
from typing import Final

from mnist_core.errors import RequestError, RequestTooLargeError

LONGEST_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""

_LONGEST_PARAMETERS: Final = 1000
"""Bytes. The time that Python takes to read them grows with their square: 60,000 that are made for it take 4 s."""
_LINE_END: Final = b"\r\n"
_PADDING: Final = b" \t"


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
    # Nothing here takes longer than a few passes over the body, whatever is in it: no more pieces are cut than may be.
    pieces = (_LINE_END + body).split(_LINE_END + b"--" + _read_boundary(parameters), most + 1)
    del pieces[0]  # what is before the first boundary is nobody's
    closing = next((index for index, piece in enumerate(pieces) if piece.startswith(b"--")), None)
    if closing is None and len(pieces) > most:
        raise RequestTooLargeError(f"received more than {most} images, expected at most these in a request")
    if closing is None:
        raise RequestError("body: received multipart/form-data that is cut off, expected its closing boundary")
    if not closing:
        raise RequestError("body: received multipart/form-data without a part, expected an image in each")
    return [_read_part(piece) for piece in pieces[:closing]]


def _read_boundary(parameters: bytes) -> bytes:
    message = Message()
    if len(parameters) <= _LONGEST_PARAMETERS:
        message["content-type"] = "multipart/form-data;" + parameters.decode("latin-1")
    boundary = message.get_boundary("").encode("latin-1", "replace")
    if not 0 < len(boundary) <= LONGEST_BOUNDARY:
        raise RequestError("content-type: expected multipart/form-data with a boundary of 1 to 70 characters")
    return boundary


def _read_part(piece: bytes) -> bytes:
    """The content of what stands between two boundaries: the rest of a line, lines of headers, an empty line, it."""
    line_end = piece.find(_LINE_END)
    if line_end < 0 or piece[:line_end].strip(_PADDING):
        raise RequestError("body: received a boundary with more after it, expected the end of the line")
    headers_end = piece.find(_LINE_END * 2, line_end)
    if headers_end < 0:
        raise RequestError("body: received a part without an empty line, expected one between headers and content")
    return piece[headers_end + 2 * len(_LINE_END) :]
