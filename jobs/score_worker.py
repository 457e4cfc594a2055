"""What scores work units, in a Ray actor or in the command's own process: a model, loaded once, and its output."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jobs.score_output import open_output
from mnist_core.config import ScoreConfig
from mnist_core.images import ImageLimits
from mnist_core.inputs.plan import Unit
from mnist_core.predictor import load_predictor
from mnist_core.registry import open_model
from mnist_core.rows import make_writer
from mnist_core.scoring import Tally, score_unit
from mnist_core.storage import open_storage


class UnitScorer:
    """Scores work units and writes their parts.

    It is made from the configuration alone and loads and verifies the model itself, so that Ray can make it anew,
    wherever and whenever one has died.

    Args:
        config: The job's configuration; its model with a version.
        threads: Threads of the engine; None takes as many as Ray reserves CPUs for an actor.
    """

    def __init__(self, config: ScoreConfig, threads: int | None = None) -> None:
        self._config = config
        artifact = open_model(open_storage(config.storage), config.model)
        self._model_version = artifact.manifest.reference
        self._predictor = load_predictor(
            artifact.files,
            device=config.device,
            precision=config.precision,
            threads=threads or max(1, int(config.cpus_per_worker)),
        )
        self._limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
        self._output = open_output(config.output)

    def score(self, index: int, unit: Unit) -> Tally:
        """Score one unit and write its part; when this returns, the unit is done."""
        config = self._config
        writer = make_writer(config.format, self._model_version, probabilities=config.probabilities)
        tally = Tally()
        for rows in score_unit(unit, self._predictor, self._limits):
            writer.write(rows)
            tally.count(rows)
        self._output.write_unit(index, writer.finish(), config.format, tally.to_dict())
        return tally

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the units of a Ray Data batch that nobody has scored yet.

        Args:
            batch: ``index`` and ``unit``, as JSON.

        Returns:
            ``index`` and ``tally``, as JSON.
        """
        tallies = [
            self._output.record(int(index)) or self.score(int(index), Unit(**json.loads(unit)))
            for index, unit in zip(batch["index"], batch["unit"], strict=True)
        ]
        return {"index": batch["index"], "tally": np.array([json.dumps(tally.to_dict()) for tally in tallies], object)}
