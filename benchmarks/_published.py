"""Which published model a benchmark judges, and pictures of what it was shown."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mnist_core.config_fields import DEFAULT_STORAGE
from mnist_core.datasets import Dataset, load_dataset
from mnist_core.errors import MnistError
from mnist_core.predictor import Predictor, load_predictor
from mnist_core.registry import open_model
from mnist_core.storage import open_storage

GAP = 2
LABEL_WIDTH = 150
ZOOM = 2


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Let the user say which model, which data and where pictures go."""
    parser.add_argument("--storage", default=DEFAULT_STORAGE, help=f"where the model is (default {DEFAULT_STORAGE})")
    parser.add_argument("--model", default="mnist", help="NAME, NAME/VERSION or an artifact's folder (default mnist)")
    parser.add_argument("--picture", type=Path, help="write a PNG file with samples of what the model is shown")


def load_model(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, Predictor]:
    """Load that model, or end and say which there are; returns what it is called and the model."""
    try:
        artifact = open_model(open_storage(options.storage), options.model)
        manifest = artifact.manifest
        return f"{manifest.name}/{manifest.version}", load_predictor(artifact.files)
    except MnistError as err:
        parser.exit(1, f"error: {err}; publish one with mnist train, or say where it is with --storage and --model\n")


def load_or_end(parser: argparse.ArgumentParser, name: str, data_dir: str | None) -> Dataset:
    """Load a dataset that the benchmark cannot do without, or end and say the ways out."""
    try:
        return load_dataset(name, Path(data_dir) if data_dir else None)
    except MnistError as err:
        parser.exit(1, f"error: {err}\n")


def draw_grid(rows: Mapping[str, npt.NDArray[np.uint8]], path: Path) -> None:
    """Write a picture with one row of images for each name.

    Args:
        rows: Name to images, uint8 (N, 28, 28); N may differ.
        path: The PNG file.
    """
    cell = 28 * ZOOM + GAP
    most = max(len(images) for images in rows.values())
    grid = Image.new("L", (LABEL_WIDTH + most * cell + GAP, len(rows) * cell + GAP), 96)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(12)
    for row, (name, images) in enumerate(rows.items()):
        top = row * cell + GAP
        draw.text((2 * GAP, top + cell // 2), name, 255, font, anchor="lm")
        for column, image in enumerate(images):
            large = Image.fromarray(image).resize((28 * ZOOM, 28 * ZOOM), Image.Resampling.NEAREST)
            grid.paste(large, (LABEL_WIDTH + column * cell + GAP, top))
    grid.save(path, "PNG")
