"""The models a replica serves: the registry's current version, older ones by name, and the change from one to the next.

A change is noticed by reading the registry's pointer every second or so. The new version is loaded, verified and warmed
up aside, then one reference is swapped: an answer is computed by one version, whole. A version that is broken is not
taken; the one before goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from mnist_core.artifact import Artifact, Manifest
from mnist_core.errors import ArtifactError, MnistError, ModelNotFoundError
from mnist_core.predictor import Predictions, Predictor, load_predictor
from mnist_core.registry import current_version, is_reference, list_versions, open_model
from mnist_core.storage import Storage, open_storage

OLD_VERSIONS: Final = 4
"""How many versions beside the current one stay loaded."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version, loaded and warm.

    Attributes:
        manifest: What was published with it.
        predictor: Computes it.
    """

    manifest: Manifest
    predictor: Predictor

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version's number."""
        return self.manifest.version

    @property
    def reference(self) -> str:
        """Name and version, as answers say it."""
        return self.manifest.reference

    def predict(self, images: Any) -> Predictions:
        """Classify uint8 (N, 28, 28)."""
        return self.predictor.predict(images)


class ServedModels:
    """Loads models and follows the registry. Any number of threads may ask.

    Args:
        storage: URI of the registry's storage.
        reference: ``NAME``, whose current version is followed; ``NAME/VERSION`` or an artifact folder, which stay.
        device: As in ``load_predictor``.
        precision: Likewise.
        threads: Likewise.

    Raises:
        ArtifactError: The model is broken.
        ModelNotFoundError: There is no such model.
    """

    def __init__(self, storage: str, reference: str, *, device: str, precision: str, threads: int | None) -> None:
        self._storage: Storage = open_storage(storage)
        self._load_predictor: Callable[[Artifact], Predictor] = lambda artifact: load_predictor(
            artifact.files, device=device, precision=precision, threads=threads
        )
        self._published = is_reference(reference)
        self._follows = self._published and "/" not in reference
        self._loading = threading.Lock()
        self._changing = threading.Lock()  # of what is loaded; nobody holds it for long
        self._others: OrderedDict[str, ServedModel] = OrderedDict()
        self._refused: str | None = None
        self.current = self._load(reference)

    @property
    def name(self) -> str:
        """The name of the model that is served."""
        return self.current.name

    def loaded(self, version: str | None) -> ServedModel | None:
        """A version that needs no loading: the current one for None; None if it must be loaded."""
        current = self.current
        if version is None or version == current.version:
            return current
        with self._changing:
            model = self._others.get(version)
            if model is not None:
                self._others.move_to_end(version)
        return model

    def open(self, version: str) -> ServedModel:
        """Load an older or newer version; it stays loaded while others are asked for less recently.

        Raises:
            ArtifactError: It is broken.
            ModelNotFoundError: There is no such version.
        """
        with self._loading:
            model = self.loaded(version)
            if model is None:
                self._check_version(version)
                model = self._load(f"{self.name}/{version}")
                with self._changing:
                    self._keep(model)
        return model

    def versions(self) -> list[str]:
        """Every version that can be asked for, oldest first."""
        if not self._published:
            return [self.current.version]
        return list_versions(self._storage, self.name)

    def refresh(self) -> bool:
        """Follow the registry's pointer; returns whether another version is served now.

        A version that is broken is not tried again until the pointer moves; a storage that does not answer is.
        """
        if not self._follows:
            return False
        version: str | None = None
        try:
            version = current_version(self._storage, self.name)
            if version is None or version == self.current.version:
                self._refused = None
                return False
            if version == self._refused:
                return False
            model = self.open(version)
        except MnistError as err:
            if isinstance(err, ArtifactError):
                self._refused = version
            logger.error("goes on serving %s: %s", self.current.reference, err)
            return False
        with self._changing:
            before, self.current = self.current, model
            self._others.pop(version, None)
            self._keep(before)
        self._refused = None
        logger.warning("serves %s, no longer %s", model.reference, before.reference)
        return True

    async def follow(self, interval_s: float, changed: Callable[[], None]) -> None:
        """Refresh for ever; loading is done aside, so that requests go on."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "registry") as aside:
            while True:
                await asyncio.sleep(interval_s)
                try:
                    if await loop.run_in_executor(aside, self.refresh):
                        changed()
                except Exception:
                    logger.exception("the registry could not be read")

    def _check_version(self, version: str) -> None:
        # The reference is checked here, not pasted: a version is a number and never part of a path from outside.
        if not self._published or not is_reference(f"{self.name}/{version}"):
            raise ModelNotFoundError(f"model {self.name!r} has no version {version!r}")

    def _load(self, reference: str) -> ServedModel:
        artifact = open_model(self._storage, reference)
        return ServedModel(artifact.manifest, self._load_predictor(artifact))

    def _keep(self, model: ServedModel) -> None:
        self._others[model.version] = model
        while len(self._others) > OLD_VERSIONS:
            self._others.popitem(last=False)
