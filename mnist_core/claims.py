"""Who is first: of all publishers of a model to a number, of all publishers of a run to that run's one version.

``models/<name>/claims/<version>`` is empty, and there for every number that was ever taken, so that a number never
comes to mean another model. ``claims/runs/<run_id>`` holds the manifest of the version that the run has. It is written
once all other files of that version are there: who finds it can do what is left, whatever became of its writer.
"""

from __future__ import annotations

from mnist_core.errors import ObjectExistsError, ObjectNotFoundError
from mnist_core.storage import Storage


def claim_version(storage: Storage, name: str) -> str:
    """Take the next number of a model for good."""
    taken = [int(folder) for folder in storage.list_folders(f"models/{name}") if folder.isdecimal()]
    version = max(taken, default=0) + 1
    while True:
        try:
            storage.create(f"models/{name}/claims/{version}", b"")
        except ObjectExistsError:
            version += 1
        else:
            return str(version)


class RunClaim:
    """The one version that a run has.

    Args:
        storage: Where the models are.
        name: The model's name.
        run_id: The run's identity.

    Attributes:
        path: Where the claim is, for people.
        manifest: What it held when it was last looked at, sealed; None if nobody had claimed the run.
    """

    def __init__(self, storage: Storage, name: str, run_id: str) -> None:
        self._storage = storage
        self._key = f"models/{name}/claims/runs/{run_id}"
        self.path = storage.path(self._key)
        self.manifest = self._read()

    def take(self, manifest: bytes) -> bool:
        """Give the run this version instead of what the claim held; False, after another look, if it holds another."""
        if self._storage.swap(self._key, manifest, expected=self.manifest):
            return True
        self.manifest = self._read()
        return False

    def _read(self) -> bytes | None:
        try:
            return self._storage.read_bytes(self._key)
        except ObjectNotFoundError:
            return None
