"""The rules of the house: who may import whom, what an import may do, what stays light, what stays small."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import pickle
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mnist_core import errors

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [name.rstrip("*") for name in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ALL_CODE = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
LOCKS = sorted(ROOT.glob("requirements*.lock"))
FORBIDDEN = {
    "mnist_core": {"ray", "fastapi", "starlette", "uvicorn", "jobs", "serve"},
    "jobs": {"serve"},
    "serve": {"jobs"},
}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
HEAVY = {"tensorflow", "keras", "ray", "matplotlib", "sklearn", "pyarrow"}

by_path = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """The modules that these statements import, by full name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def forbidden_imports(package: str, tree: ast.Module) -> set[str]:
    roots = {module.split(".")[0] for module in imported_modules(ast.walk(tree))}
    return roots & (FORBIDDEN.get(package, set()) | PICKLES | {""})  # "" is a relative import


def legacy_keras(tree: ast.Module) -> list[int]:
    """Lines that reach for TensorFlow's own Keras: in Ray's workers ``tf.keras`` is Keras 2."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute) and node.attr == "keras" and ast.unparse(node.value) in ("tf", "tensorflow")
        )
        or any(module.startswith("tensorflow.keras") for module in imported_modules([node]))
        or (
            isinstance(node, ast.ImportFrom) and node.module == "tensorflow" and "keras" in {a.name for a in node.names}
        )
    ]


def unnamed_ray_serve(tree: ast.Module) -> list[int]:
    """Lines that import Ray's ``serve`` under the name of our own package."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "ray"
        for alias in node.names
        if alias.name == "serve" and alias.asname != "ray_serve"
    ]


def test_the_packages_are_found():
    assert {path.parent.name for path in SOURCES} >= {"mnist_core", "jobs", "serve"}


@by_path
def test_a_package_imports_none_that_it_must_not(path: Path):
    assert not forbidden_imports(path.relative_to(ROOT).parts[0], parse(path))


@by_path
def test_keras_is_never_taken_from_tensorflow(path: Path):
    assert not legacy_keras(parse(path))


@by_path
def test_ray_serve_is_never_mistaken_for_our_serve(path: Path):
    assert not unnamed_ray_serve(parse(path))


@pytest.mark.parametrize(
    "code",
    ["import ray.train", "def f():\n    from ray import train", "import jobs.cli", "import pickle", "from . import x"],
)
def test_the_import_rule_sees_a_forbidden_import(code: str):
    assert forbidden_imports("mnist_core", ast.parse(code))


@pytest.mark.parametrize("code", ["tf.keras.Model()", "import tensorflow.keras.layers", "from tensorflow import keras"])
def test_the_keras_rule_sees_the_wrong_keras(code: str):
    assert legacy_keras(ast.parse(code))
    assert not legacy_keras(ast.parse("import keras\nkeras.Model()\nimport tensorflow as tf\ntf.function"))


def test_the_ray_serve_rule_sees_a_missing_alias():
    assert unnamed_ray_serve(ast.parse("from ray import serve"))
    assert not unnamed_ray_serve(ast.parse("from ray import serve as ray_serve"))


def test_there_is_no_drawer_for_everything():
    assert not [path for path in ALL_CODE if path.stem in ("util", "utils", "helpers", "common", "misc")]


def test_no_file_reaches_300_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in ALL_CODE}
    assert not {path: length for path, length in lengths.items() if length >= 300}


IMPORT_EVERYTHING = """
import importlib, json, logging, os, sys, threading

third_party, ours = json.loads(sys.argv[1])
for module in third_party:  # what these do when they are imported is their makers' business
    importlib.import_module(module)
os.environ["HOME"] = os.environ["TMPDIR"] = os.getcwd()

def state():
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "log handlers": [repr(handler) for handler in root.handlers],
        "log level": root.level,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": os.listdir(),
    }

before = state()
for module in ours:
    importlib.import_module(module)
after = state()
changed = [what for what in before if before[what] != after[what]]
if "ray" in sys.modules and sys.modules["ray"].is_initialized():
    changed.append("ray.init")
print(json.dumps(changed))
"""


def changed_by_import(modules: list[str], third_party: list[str], folder: Path) -> list[str]:
    command = [sys.executable, "-c", IMPORT_EVERYTHING, json.dumps([third_party, modules])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_happens_at_import(tmp_path: Path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.name != "__main__.py"
    ]
    imported = {module for path in SOURCES for module in imported_modules(parse(path).body)}
    third_party = {m for m in imported if m.split(".")[0] not in {*PACKAGES, *sys.stdlib_module_names}}
    assert changed_by_import(modules, sorted(third_party), tmp_path) == []


def test_the_import_check_sees_what_a_careless_module_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "careless.py").write_text(
        "import logging, os, threading\n"
        "os.environ['X_CARELESS'] = '1'\nlogging.basicConfig(level=10)\nos.mkdir('made')\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    changed = changed_by_import(["careless"], [], tmp_path / "empty")
    assert changed == ["environment", "log handlers", "log level", "threads", "files"]


@pytest.mark.parametrize(
    "code",
    ["import mnist_core.config", "import mnist_core.errors"]
    + [f"from jobs.cli import main; main({argv})" for argv in (["--help"], ["train", "--help"], ["models", "--help"])],
)
def test_what_answers_at_once_loads_nothing_heavy(code: str):
    script = f"{code}\nimport sys\nprint(sorted({HEAVY} & set(sys.modules)))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    # CPU time, which unlike the clock does not depend on what else runs; 0.25 s on a 2-core machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def exception_classes(cls: type[errors.MnistError] = errors.MnistError) -> list[type[errors.MnistError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in exception_classes(child))]


def test_every_exception_is_defined_in_the_one_tree():
    assert {cls.__module__ for cls in exception_classes()} == {"mnist_core.errors"}
    for path in SOURCES:
        classes = [node for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)]
        named_so = [node.name for node in classes if node.name.endswith(("Error", "Exception"))]
        assert not named_so or path.name == "errors.py", f"{path.name} defines {named_so}"


def test_every_exception_has_a_code_of_its_own():
    codes = [vars(cls).get("code") for cls in exception_classes()]
    assert all(code and re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", exception_classes(), ids=lambda cls: cls.__name__)
def test_an_exception_says_when_it_is_raised_and_survives_pickle(cls: type[errors.MnistError]):
    assert cls.__doc__.startswith(("Raised when ", "Base class: raised when "))
    copy = pickle.loads(pickle.dumps(cls("what happened")))
    assert (type(copy), str(copy), copy.code) == (cls, "what happened", cls.code)


def locked(path: Path) -> dict[str, list[str]]:
    """The pins of a lock file: distribution name -> versions (several where they depend on the Python version)."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
        pins.setdefault(canonicalize_name(name), []).append(version)
    return pins


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_holds_exact_versions_with_hashes_and_nothing_else(path: Path):
    pin = r"[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==[A-Za-z0-9.+!]+( ; [a-zA-Z0-9_.<>=!' ()]+)? \\\n"
    hashes = r"(    --hash=sha256:[0-9a-f]{64} \\\n)*    --hash=sha256:[0-9a-f]{64}\n"
    assert re.fullmatch(f"({pin}{hashes})+", path.read_text(encoding="utf-8"))


def test_the_lock_files_hold_what_the_project_asks_for():
    project = PYPROJECT["project"]
    runtime, dev = locked(ROOT / "requirements.lock"), locked(ROOT / "requirements-dev.lock")
    for pins, wanted in ((runtime, project["dependencies"]), (dev, project["optional-dependencies"]["dev"])):
        for requirement in map(Requirement, [*wanted, *PYPROJECT["build-system"]["requires"]]):
            versions = pins.get(canonicalize_name(requirement.name), [])
            assert versions, f"{requirement.name} is not locked"
            assert all(requirement.specifier.contains(version) for version in versions), requirement
    assert runtime.items() <= dev.items()


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    version = PYPROJECT["project"]["version"]
    assert newest
    assert newest[1] == version == importlib.metadata.version(PYPROJECT["project"]["name"])
