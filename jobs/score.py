"""``mnist score``: digits for datasets of images of any size, every image accounted for, on Ray Data.

Plan, score, add up. What scores is ``jobs.score_actors`` on Ray and ``jobs.score_here`` until Ray has started; what is
on the storage at which moment is ``jobs.score_output``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from jobs.cluster import ray_session
from jobs.score_actors import load_ray_data, score_on_ray
from jobs.score_here import HeadStart
from jobs.score_output import Output, open_output
from jobs.score_progress import ScoreProgress
from mnist_core.cluster_address import LOCAL, choose_address
from mnist_core.config import ScoreConfig
from mnist_core.config_fields import absolute_storage
from mnist_core.errors import OutputConflictError, RunInterruptedError, ScoringFailedError
from mnist_core.inputs.plan import Unit, plan_inputs
from mnist_core.registry import is_reference, open_model
from mnist_core.scoring import Tally
from mnist_core.splits import NUM_CLASSES
from mnist_core.storage import open_storage

MODEL: Final = "model.tflite"

RAY_PAYS_S: Final = 15.0
"""Less work than this, for this process alone, is done before Ray has started, scored and stopped on two cores."""


def run(config: ScoreConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object, which is also ``_SUCCESS.json`` (``_FAILED.json`` if too many items were bad): ``output``,
        ``model_version``, ``items``, ``errors`` and ``remarks`` by code, ``bad_fraction``, ``rejected``, ``digits``,
        ``skipped`` files by suffix, ``seconds`` (this command's), ``images_per_second``, ``resumed_units``, and where
        true labels are known ``labelled``, ``accuracy`` and ``confusion``; and ``problem`` if there were too many.

    Raises:
        ConfigError: The output folder is in use, or has nothing to resume.
        OutputConflictError: The job to resume was begun with other settings.
        DatasetError: An input is missing or wrong.
        ModelNotFoundError: There is no such model.
        ScoringFailedError: The actors failed for a reason that is not in an image.
    """
    started = time.monotonic()
    output = open_output(config.output)
    config, units, skipped, version = _begin(config, output)
    done = output.records() if config.resume else {}
    resumed = len(done)
    pending = [(index, unit) for index, unit in enumerate(units) if index not in done]
    with ScoreProgress(units, done.values(), skipped) as progress:
        try:
            done |= _score(config, pending, progress)
        except KeyboardInterrupt as err:
            raise RunInterruptedError(
                f"interrupted; finish with: mnist score {shlex.join(config.paths)} --resume and the same options"
            ) from err
    missing = [index for index in range(len(units)) if index not in done]
    if missing:
        raise ScoringFailedError(f"{len(missing)} of {len(units)} units have no result; finish with --resume")
    total = Tally()
    for index in sorted(done):
        total.add(done[index])
    seconds = time.monotonic() - started
    images = sum(done[index].items for index, _ in pending)
    summary = _summarise(config, version, total, skipped, seconds, images) | {"resumed_units": resumed}
    if not pending and (before := output.summary()):
        summary |= {name: before[name] for name in ("seconds", "images_per_second")}
    problem = _too_many_bad(config, total, output)
    output.finish(summary, good=problem is None)
    return summary | ({"problem": problem} if problem else {})


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    lines = [
        f"{result['items']:,} images scored by {result['model_version']} in {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,} img/s",
        "digits    " + "".join(f"{digit:>8}" for digit in range(NUM_CLASSES)),
        "images    " + "".join(f"{count:>8,}" for count in result["digits"]),
    ]
    if result["errors"]:
        lines.append("errors    " + ", ".join(f"{code} {count:,}" for code, count in result["errors"].items()))
    if result["remarks"]:
        lines.append("remarks   " + ", ".join(f"{code} {count:,}" for code, count in result["remarks"].items()))
    lines.append(f"rejected  {result['rejected']:,} look like no digit")
    if "accuracy" in result:
        lines.append(f"accuracy  {result['accuracy']:.2%} of {result['labelled']:,} with a known label")
    return "\n".join([*lines, f"output    {result['output']}"])


def _begin(config: ScoreConfig, output: Output) -> tuple[ScoreConfig, list[Unit], dict[str, int], str]:
    """Plan a new job, or read the plan of one to finish.

    Returns:
        The configuration with the very version of the model that the job began with, the units, what was skipped, and
        what to call the model.
    """
    registry = open_storage(config.storage)
    if config.resume:
        settings, units, skipped = output.resume(config.identity())
        artifact = open_model(registry, settings["model"])
        if artifact.manifest.files[MODEL].sha256 != settings["model_sha256"]:
            raise OutputConflictError(f"model {settings['model']}: is another one than the job began with")
        return config.model_copy(update={"model": settings["model"]}), units, skipped, artifact.manifest.reference
    output.refuse_used()
    with ThreadPoolExecutor(1) as pool:  # the listing of a large folder takes as long as the model
        loading = pool.submit(open_model, registry, config.model)
        plan = plan_inputs(
            config.inputs,
            labels=config.labels,
            image_column=config.image_column,
            label_column=config.label_column,
            id_column=config.id_column,
        )
        artifact = loading.result()
    # Of a name its version of today: a promotion in the middle of a job changes nothing.
    model = artifact.manifest.reference if is_reference(config.model) else absolute_storage(config.model)
    facts = {"model": model, "model_sha256": artifact.manifest.files[MODEL].sha256}
    output.create(config.identity() | facts, plan.units, plan.skipped)
    return config.model_copy(update={"model": model}), plan.units, plan.skipped, artifact.manifest.reference


def _score(config: ScoreConfig, pending: Sequence[tuple[int, Unit]], progress: ScoreProgress) -> dict[int, Tally]:
    """Score units, here and on Ray; returns the tally of each."""
    if not pending:
        return {}
    if choose_address() != LOCAL or config.workers:  # asked before anything imports Ray
        with ray_session(verbose=config.verbose) as session:
            return score_on_ray(session.ray, config, pending, progress.advance)
    with HeadStart(config, pending, progress.advance) as here:
        here.wait_for_rate(RAY_PAYS_S)
        if here.seconds_left() > RAY_PAYS_S:
            load_ray_data()
            with ray_session(verbose=config.verbose) as session:
                if left := here.left():

                    def on_unit(index: int, tally: Tally) -> None:
                        here.stop()  # the actors are there
                        progress.advance(index, tally)

                    return score_on_ray(session.ray, config, left, on_unit) | here.finish()
        return here.finish()


def _summarise(
    config: ScoreConfig, version: str, total: Tally, skipped: dict[str, int], seconds: float, images: int
) -> dict[str, Any]:
    labelled = sum(map(sum, total.confusion))
    truth = {}
    if labelled:
        correct = sum(total.confusion[digit][digit] for digit in range(NUM_CLASSES))
        truth = {"labelled": labelled, "accuracy": correct / labelled, "confusion": total.confusion}
    return {
        "output": config.output,
        "model_version": version,
        "items": total.items,
        "errors": total.errors,
        "remarks": total.remarks,
        "bad_fraction": total.num_errors / total.items if total.items else 0.0,
        "examples": total.examples,
        "rejected": total.rejected,
        "digits": total.digits,
        "skipped": skipped,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds),
        **truth,
    }


def _too_many_bad(config: ScoreConfig, total: Tally, output: Output) -> str | None:
    if total.num_errors <= config.max_bad_fraction * total.items:
        return None
    named = "; ".join(f"{bad['id']} ({bad['code']})" for bad in total.examples)
    return (
        f"{total.num_errors} of {total.items} items are bad, more than --max-bad-fraction {config.max_bad_fraction:g}: "
        f"{named}{' ...' if total.num_errors > len(total.examples) else ''}; all rows are in {output.storage.uri}"
    )
