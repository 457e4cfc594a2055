"""The notebook for people: it runs from top to bottom, keeps no outputs, and speaks of nothing that does not exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from mnist_core.config import COMMANDS, TrainConfig
from mnist_core.recipes import RECIPES

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "mnist_cnn.ipynb"
FIGURES = {"digits", "curves", "samples", "confusion", "mistakes", "reliability"}

notebook = nbformat.read(NOTEBOOK, as_version=4)
prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
code = [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(tag: str) -> list[int]:
    return [index for index, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])]


def test_it_keeps_no_outputs_and_nothing_of_who_ran_it():
    assert code
    for cell in code:
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
        assert set(cell.metadata) <= {"tags"}, cell.id
    assert notebook.metadata.language_info == {"name": "python"}, "no version of Python"


def defined_names() -> set[str]:
    """What the library and the notebook define: functions and their arguments, classes, variables, fields."""
    names = {*TrainConfig.model_fields, *RECIPES, "uint8"}
    sources = [path.read_text("utf-8") for package in ("mnist_core", "jobs") for path in (ROOT / package).glob("*.py")]
    for source in [*sources, *(cell.source for cell in code)]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
    return names


def spoken_of(text: str) -> Iterator[str]:
    """The names in what a text marks as code, but for words of a shell, files, variables and URIs."""
    for span in re.findall(r"`([^`\n]+)`", text.replace("```", "")):
        if re.fullmatch(r"[a-z_A-Z.]+(\(.*\))?|\w+=.+", span) and not span.startswith(".") and not span.isupper():
            yield from re.findall(r"[A-Za-z_]\w*", re.sub(r"\"[^\"]*\"", "", span))


def test_its_prose_names_nothing_that_does_not_exist():
    names = {name for text in prose for name in spoken_of(text)}
    assert names >= {"train_here", "train_on_ray", "TrainConfig", "config", "on_epoch", "storage"}, "names are found"
    known = defined_names() | {"print", "RAY_ADDRESS"}
    assert not {name for name in names if name not in known}


def test_its_prose_gives_commands_that_exist():
    commands = set(re.findall(r"^\$ mnist (\w+)", "\n".join(prose), re.MULTILINE))
    assert commands
    assert commands <= {config.command for config in COMMANDS}
    targets = set(re.findall(r"`make ([\w-]+)`", "\n".join(prose)))
    assert targets
    assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE) for target in targets)


def test_the_two_ways_to_train_differ_in_one_line():
    here, on_ray = (next(cell.source for cell in code if cell.id == name) for name in ("train", "train-on-ray"))
    assert here.splitlines()[-1] == "trained = train_here(config, on_epoch=print)"
    assert on_ray.splitlines()[-1] == "trained_on_ray = train_on_ray(config)"


def test_what_it_imports_is_there():
    for cell in code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


def small(folder: Path) -> Any:
    """The notebook with other parameters: the embedded digits, two epochs."""
    values = {"dataset": "uci-digits", "data_dir": None, "epochs": 2, "storage": str(folder / "storage")}
    cells = list(notebook.cells)
    (position,) = tagged("parameters")
    assignments = {
        target.id
        for node in ast.parse(cells[position].source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert assignments >= values.keys()
    injected = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cells.insert(position + 1, nbformat.v4.new_code_cell(injected))
    return nbformat.from_dict({**notebook, "cells": cells})


@pytest.mark.ray
def test_it_runs_from_top_to_bottom_and_the_two_trainings_give_one_model(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    addresses = []

    def look_at_ports() -> None:
        process = psutil.Process(client.km.provisioner.process.pid)
        listening = (each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN)
        addresses.extend(each.laddr.ip for each in listening)

    run = small(tmp_path)
    sockets = Config({"KernelManager": {"transport": "ipc", "ip": str(tmp_path / "kernel")}})  # of the file system
    client = NotebookClient(run, config=sockets, timeout=500, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.on_cell_executed = lambda cell, **_: look_at_ports() if cell.id == "evaluate" else None
    client.execute()
    assert set(addresses) <= {"127.0.0.1"}, "the kernel is not reached over the network"
    outputs = {cell.id: cell.get("outputs", []) for cell in run.cells}
    for name in FIGURES:
        (picture,) = outputs[name]
        assert "image/png" in picture.data
    said = "".join(output.text for output in outputs["train"])
    assert re.fullmatch(r"(epoch  \d  loss .* s\n){2}", said), "and nothing that TensorFlow has to say"
    assert re.fullmatch(r"test accuracy \d+\.\d\d%, loss \d\.\d+, of 360 images\n", outputs["evaluate"][0].text)
    assert {output.output_type for output in outputs["train-on-ray"]} == {"display_data"}, (
        "what rich shows, nothing else"
    )
    assert outputs["same"][0].data["text/plain"] == "True"
    assert (tmp_path / "storage" / "models" / "mnist" / "1" / "report.html").is_file()
