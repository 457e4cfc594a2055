"""Recipes: named sets of training values, plain data.

A recipe stands below everything a user says: ``defaults < recipe < file < environment < flags``.
"""

from __future__ import annotations

from typing import Any, Final

NOTEBOOK: Final[dict[str, Any]] = {
    "network": "convnet",
    "epochs": 10,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "augment": "none",
    "ema_decay": 0.0,
    "dropout": 0.5,
    "select": "best",
}
"""The reference notebook: 34,826 parameters, Adam at its default rate, 10 epochs of batches of 128."""

DEFAULT: Final[dict[str, Any]] = {
    "network": "deepnet",
    "epochs": 10,
    "batch_size": 128,
    "learning_rate": 3e-3,
    "schedule": "one-cycle",
    "weight_decay": 1e-2,
    "label_smoothing": 0.05,
    "augment": "affine",
    "ema_decay": 0.998,
    "dropout": 0.25,
    "select": "last",
}
"""A deeper network, augmentation, a one-cycle schedule and averaged weights; nothing is selected."""

RECIPES: Final[dict[str, dict[str, Any]]] = {"notebook": NOTEBOOK, "default": DEFAULT}
