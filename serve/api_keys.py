"""The keys that open the endpoint."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from pathlib import Path
from typing import Final

from mnist_core.errors import ConfigError, UnauthorizedError
from serve.calls import Call

RELOAD_S: Final = 1.0
"""How often the file is looked at."""

logger = logging.getLogger(__name__)


class ApiKeys:
    """Keys from a file, one a line, ``#`` starts a comment; read again when it changes.

    Args:
        path: The file; None: everybody may ask.

    Raises:
        ConfigError: It cannot be read or holds no key.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._looked_at = time.monotonic()
        self._stamp: tuple[int, int] | None = None
        self._digests: list[bytes] = []
        if path:
            self._read(path)

    def check(self, call: Call) -> None:
        """Refuse a call without a valid key, in a time that tells nothing of the keys.

        Raises:
            UnauthorizedError: It brings none, or not one of these.
        """
        if self._path is None:
            return
        if time.monotonic() - self._looked_at > RELOAD_S:
            self._reload(self._path)
        scheme, _, token = call.header(b"authorization").partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else call.header(b"x-api-key")
        digest = hashlib.sha256(key).digest()
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise UnauthorizedError("expected an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")

    def _reload(self, path: Path) -> None:
        """Take over a changed file; one that is no good is told of, and the keys known before go on."""
        self._looked_at = time.monotonic()
        try:
            self._read(path)
        except ConfigError as err:
            logger.error("the known API keys stay: %s", err)

    def _read(self, path: Path) -> None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(f"--api-key-file {path}: cannot be read ({err}); expected one key a line") from err
        keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            raise ConfigError(f"--api-key-file {path}: received no key, expected one a line")
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
