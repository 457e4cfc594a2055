"""The recipes as plain data; that they become configurations is tested there."""

from __future__ import annotations

import pytest

from mnist_core.config import TrainConfig
from mnist_core.recipes import NOTEBOOK, RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_set_the_same_fields_so_that_one_leaves_nothing_of_another(recipe):
    assert RECIPES[recipe].keys() == NOTEBOOK.keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_decides_results_only_and_not_how_a_run_is_carried_out(recipe):
    assert not RECIPES[recipe].keys() & TrainConfig.EXECUTION_FIELDS


def test_the_notebook_recipe_is_the_notebooks():
    asked = {"network": "convnet", "epochs": 10, "batch_size": 128, "augment": "none", "schedule": "constant"}
    assert asked.items() <= NOTEBOOK.items()
    assert NOTEBOOK["dropout"] > 0
    assert not any(NOTEBOOK[extra] for extra in ("weight_decay", "label_smoothing", "ema_decay"))
