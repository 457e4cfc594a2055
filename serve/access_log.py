"""One JSON object a request, in a file that several replicas may write."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import orjson

from serve.calls import Reply

logger = logging.getLogger(__name__)


class AccessLog:
    """Keeps lines for a moment, since a write for each request would be dear.

    Args:
        path: The file; None keeps no log.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[bytes] = []

    def write(self, scope: MutableMapping[str, Any], reply: Reply, request_id: str, seconds: float) -> None:
        """Note one request. Neither its body nor its query or headers are kept."""
        if self._path is None:
            return
        client = scope.get("client")
        entry = {
            "time": time.time(),
            "request_id": request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": reply.status,
            "code": reply.code or None,
            "seconds": round(seconds, 6),
            "bytes": len(reply.body),
        }
        self._lines.append(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        """Write what was noted: whole lines in one call, so that replicas can share a file."""
        if not self._lines or self._path is None:
            return
        lines, self._lines = self._lines, []
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                os.write(file, b"".join(lines))
            finally:
                os.close(file)
        except OSError as err:
            logger.error("access log %s: %d lines lost: %s", self._path, len(lines), err)
