"""Checkpoints of a run: one object each on the storage, whole or refused, written beside the training.

A checkpoint is ``magic, SHA-256 of the rest, length of the header, header (JSON), arrays (npz without pickle)``. One
object is written in one step, so a torn one can only come from a storage that breaks its word; the checksum finds it
and any flipped byte, and the reader takes the checkpoint before.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import struct
import zipfile
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.background import NewestWriter
from mnist_core.errors import CheckpointError, ObjectNotFoundError, StorageError
from mnist_core.storage import Storage
from mnist_core.training import Progress

MAGIC: Final = b"MNISTCK1"
MAX_CHECKPOINT_BYTES: Final = 1 << 30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        progress: Where the run stood.
        arrays: The trainer's state, and ``selected``, the weights of the best epoch so far, if there is one.
    """

    progress: Progress
    arrays: dict[str, npt.NDArray[np.float32]]

    @property
    def key(self) -> str:
        """Name on the storage; names sort in the order of training."""
        return f"{self.progress.epoch:06d}-{self.progress.step:08d}.ckpt"


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Turn a checkpoint into the bytes of one object."""
    header = json.dumps(checkpoint.progress.to_dict()).encode()
    arrays = io.BytesIO()
    np.savez(arrays, **checkpoint.arrays)  # type: ignore[arg-type]
    body = struct.pack("<I", len(header)) + header + arrays.getvalue()
    return MAGIC + hashlib.sha256(body).digest() + body


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Undo ``encode_checkpoint``.

    Raises:
        CheckpointError: The bytes are not those that were written.
    """
    magic, digest, body = data[:8], data[8:40], data[40:]
    if magic != MAGIC:
        raise CheckpointError(f"expected a checkpoint that starts with {MAGIC!r}, found {magic!r}")
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointError("its bytes do not match its checksum")
    try:
        (length,) = struct.unpack("<I", body[:4])
        progress = Progress.from_dict(json.loads(body[4 : 4 + length]))
        with np.load(io.BytesIO(body[4 + length :]), allow_pickle=False) as arrays:
            return Checkpoint(progress, {name: arrays[name] for name in arrays.files})
    except (ValueError, KeyError, TypeError, OSError, struct.error, zipfile.BadZipFile) as err:
        raise CheckpointError(f"its checksum is right but its content is not of this version: {err}") from err


def newest_checkpoint(storage: Storage, folder: str) -> tuple[str, Checkpoint] | None:
    """Find the newest checkpoint that is whole; each broken one is skipped with a warning.

    Args:
        storage: Where the run lives.
        folder: The run's checkpoint folder.

    Returns:
        Its key and the checkpoint; None if there is none.
    """
    for key in reversed(storage.list_keys(folder)):
        try:
            return key, read_checkpoint(storage, key)
        except (CheckpointError, ObjectNotFoundError) as err:
            logger.warning("checkpoint %s is skipped for the one before: %s", storage.path(key), err)
    return None


def read_checkpoint(storage: Storage, key: str) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: It is torn or corrupt.
        ObjectNotFoundError: There is none.
    """
    return decode_checkpoint(storage.read_bytes(key, MAX_CHECKPOINT_BYTES))


def checkpoint_writer(storage: Storage, folder: str, keep: int) -> NewestWriter[Checkpoint]:
    """Make the writer of a run's checkpoints, and tidy up after writers of this run that were killed.

    A storage that refuses to delete, as the policy of a bucket may, costs room and nothing else: one warning.

    Args:
        storage: Where the run lives.
        folder: The run's checkpoint folder.
        keep: How many checkpoints stay; older ones are deleted after a newer one is safely there.
    """
    warned = False

    def tidy(written: str) -> None:
        nonlocal warned
        try:
            # Later names are broken ones that were skipped: counted, they would push this one out.
            for key in [key for key in storage.list_keys(folder) if key <= written][:-keep]:
                storage.delete(key)
        except StorageError as err:
            if not warned:
                logger.warning("old checkpoints stay: %s", err)
            warned = True

    def write(checkpoint: Checkpoint) -> None:
        written = f"{folder}/{checkpoint.key}"
        storage.write_bytes(written, encode_checkpoint(checkpoint))
        tidy(written)

    try:
        storage.remove_leftovers(folder)
    except StorageError as err:
        logger.warning("what killed writers left stays: %s", err)
    return NewestWriter("checkpoint", write)
