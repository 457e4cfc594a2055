"""What a file of a scoring job's input is, told by its name and, where that says too little, by its first bytes.

The kinds are ``file`` (one encoded image), the containers ``idx``, ``npy``, ``npz``, ``parquet`` and ``tar``, and
``side`` for what lies beside images and is none. Whether a file keeps what its name promises is seen by who opens it.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from typing import Final

from mnist_core.idx import GZIP_MAGIC, MAX_HEADER_BYTES, is_idx
from mnist_core.splits import IMAGE_SUFFIXES

START_BYTES: Final = 1024
"""How much of a file `kind_of_start` needs."""

_SIDE: Final = (
    ".txt .list .md .rst .json .jsonl .csv .tsv .xml .html .htm .yaml .yml .toml .ini .cfg .log .cls .py .ipynb .sh "
    ".md5 .sha256 .db"
)
_CONTAINERS: Final = {".parquet": "parquet", ".npy": "npy", ".npz": "npz", ".tar": "tar", ".tgz": "tar"}
_KINDS: Final = dict.fromkeys(IMAGE_SUFFIXES, "file") | dict.fromkeys(_SIDE.split(), "side") | _CONTAINERS
_IDX_LIKE: Final = re.compile("images|labels|idx|ubyte")
_SURELY_IDX: Final = re.compile(r".*(idx[13]-ubyte|\.idx[13]?)(\.gz)?", re.DOTALL | re.IGNORECASE)
_MAGICS: Final = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PAR1": "parquet"}


def suffix(name: str) -> str:
    """Take the last suffix of a name, in lower case: ``.png``; empty if it has none."""
    return name[name.rfind(".") :].lower() if "." in name else ""


def kind_of_name(name: str) -> str:
    """Tell what a file is by its name.

    Returns:
        One of the kinds; ``idx?`` where the first bytes must be looked at; ``unknown``.
    """
    kind = _KINDS.get(suffix(name))
    if kind:
        return kind
    lower = name.lower()
    if lower.endswith((".tar.gz", ".tar.bz2", ".tar.xz")):
        return "tar"
    return "idx?" if _IDX_LIKE.search(lower) else "unknown"


def is_surely_idx(name: str) -> bool:
    """Tell whether a name promises an IDX file, so that one without its first bytes is broken and no image."""
    return _SURELY_IDX.fullmatch(name) is not None


def kind_of_start(start: bytes) -> str:
    """Tell what a file is by its first ``START_BYTES``.

    Returns:
        One of the containers; ``labels`` for an IDX file of one dimension; ``unknown``.
    """
    if start.startswith(GZIP_MAGIC):
        with contextlib.suppress(zlib.error):
            start = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(start, START_BYTES)
    if is_idx(start[:MAX_HEADER_BYTES]):
        return "labels" if start[3] == 1 else "idx"
    if start[257:262] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _MAGICS.items() if start.startswith(magic)), "unknown")


def label_of_folder(path: str) -> int | None:
    """Tell the true label of an image by the folder it lies in: that of ``train/7/x.png`` is 7."""
    folder = path[: max(path.rfind("/"), 0)]
    name = folder[folder.rfind("/") + 1 :]
    return int(name) if len(name) == 1 and name in "0123456789" else None
