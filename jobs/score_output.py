"""The output of a scoring job: its plan, one part and one record a work unit, and the mark that all is done.

A unit is done when its record is there, which is written after its part. Parts and records are written whole or not at
all and hold the same bytes whoever writes them, so a unit that is done twice, after a crash or by a worker that was
thought dead, still gives each row once. ::

    part-000012.parquet     the rows of unit 12
    _plan.json.gz           what the job does: settings and units, written first and never changed
    _records/000012.json    the tally of unit 12
    _SUCCESS.json           the summary, written last; _FAILED.json where too many items were bad

Readers of folders of Parquet (Arrow, Spark, DuckDB) leave out what starts with an underscore.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from mnist_core.errors import ConfigError, ObjectExistsError, ObjectNotFoundError, OutputConflictError
from mnist_core.inputs.plan import Unit
from mnist_core.rows import SUFFIXES
from mnist_core.scoring import Tally
from mnist_core.storage import Storage, open_storage

PLAN: Final = "_plan.json.gz"
SUCCESS: Final = "_SUCCESS.json"
FAILURE: Final = "_FAILED.json"
RECORDS: Final = "_records"
READERS: Final = 16


class Output:
    """One output folder.

    Args:
        storage: The folder, local or in a bucket.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        return open_output, (self.storage.uri,)

    def refuse_used(self) -> None:
        """Refuse what is no folder, or one that holds anything.

        Raises:
            ConfigError: It is, or does.
        """
        if Path(self.storage.uri).is_file():
            raise ConfigError(f"output {self.storage.uri}: is a file, expected a new folder: INPUT... OUTPUT")
        if self.storage.holds_anything():
            raise ConfigError(
                f"output {self.storage.uri}: is not empty and nothing is overwritten; name a new folder, "
                "or finish the job that began there with --resume"
            )

    def create(self, settings: dict[str, Any], units: Sequence[Unit], skipped: dict[str, int]) -> None:
        """Write the plan; of two jobs that begin at once, one is refused.

        Raises:
            OutputConflictError: Another job was first.
        """
        plan = {"format": 1, "settings": settings, "skipped": skipped, "units": [asdict(unit) for unit in units]}
        try:
            self.storage.create(PLAN, gzip.compress(json.dumps(plan).encode(), compresslevel=1, mtime=0))
        except ObjectExistsError as err:
            raise OutputConflictError(
                f"output {self.storage.uri}: another job began there just now; name another folder"
            ) from err

    def resume(self, settings: dict[str, Any]) -> tuple[dict[str, Any], list[Unit], dict[str, int]]:
        """Read the plan of a job that began before.

        Returns:
            Its settings, its units and what it skipped.

        Raises:
            ConfigError: There is no plan.
            OutputConflictError: It was made with other settings; they are named.
        """
        try:
            plan = json.loads(gzip.decompress(self.storage.read_bytes(PLAN)))
        except ObjectNotFoundError as err:
            raise ConfigError(f"--resume: found no job in {self.storage.uri}; leave --resume out to begin one") from err
        differing = [
            f"{name} was {plan['settings'].get(name)!r}, asked for {value!r}"
            for name, value in settings.items()
            if plan["settings"].get(name) != value
        ]
        if differing:
            raise OutputConflictError(
                f"output {self.storage.uri}: its job began with other settings: {'; '.join(differing)}"
            )
        return plan["settings"], [Unit(**unit) for unit in plan["units"]], plan["skipped"]

    def write_unit(self, index: int, content: bytes, file_format: str, record: dict[str, Any]) -> None:
        """Write a unit's rows, then its record, which makes them count."""
        self.storage.write_bytes(f"part-{index:06d}{SUFFIXES[file_format]}", content)
        self.storage.write_bytes(f"{RECORDS}/{index:06d}.json", json.dumps(record).encode())

    def record(self, index: int) -> Tally | None:
        """The tally of a unit that is done; None before."""
        try:
            return Tally.from_dict(json.loads(self.storage.read_bytes(f"{RECORDS}/{index:06d}.json")))
        except ObjectNotFoundError:
            return None

    def records(self) -> dict[int, Tally]:
        """The tallies of all units that are done."""
        keys = self.storage.list_keys(RECORDS)
        with ThreadPoolExecutor(READERS) as pool:
            contents = list(pool.map(self.storage.read_bytes, keys))
        return {
            int(key.rpartition("/")[2].removesuffix(".json")): Tally.from_dict(json.loads(content))
            for key, content in zip(keys, contents, strict=True)
        }

    def finish(self, summary: dict[str, Any], *, good: bool) -> None:
        """Write the summary: success or failure, never both."""
        self.storage.delete(FAILURE if good else SUCCESS)
        self.storage.write_bytes(SUCCESS if good else FAILURE, (json.dumps(summary, indent=2) + "\n").encode())

    def summary(self) -> dict[str, Any] | None:
        """The summary of a job that is done; None before."""
        try:
            return dict(json.loads(self.storage.read_bytes(SUCCESS)))
        except ObjectNotFoundError:
            return None


def open_output(uri: str) -> Output:
    """Open an output folder; nothing is created yet."""
    return Output(open_storage(uri))
