from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from mnist_core.evaluation import count_predictions
from mnist_core.report import evaluation_files, render_report

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 40, dtype=np.uint8)
PROBABILITIES = GENERATOR.dirichlet(np.ones(10), 40).astype(np.float32)
EVALUATION = count_predictions(PROBABILITIES, LABELS).evaluate()
EPOCH = {"epoch": 1, "train_loss": 1.0, "validation_loss": 1.1, "train_accuracy": 0.8, "validation_accuracy": 0.7}
HOSTILE = "<script>alert('1')</script>\"'&amp;</title></style></pre><img src=x onerror=alert(1)>"
VOID_ELEMENTS = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and the text."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def make_files(**options):
    settings = {
        "model": "mnist/3",
        "dataset": {"name": "mnist", "split": "test", "sha256": "ab" * 32},
        "tables": {"Configuration": {"epochs": 3, "run": None}},
        "command": "mnist train",
    }
    return evaluation_files(EVALUATION, IMAGES, LABELS, PROBABILITIES, **(settings | options))


@pytest.fixture(scope="module")
def files():
    return make_files(history=[EPOCH], best_epoch=1)


def test_files_are_json_page_and_plots(files):
    assert set(files) == {
        "evaluation.json",
        "report.html",
        "plots/training-curves.png",
        "plots/confusion-matrix.png",
        "plots/mistakes.png",
        "plots/reliability.png",
        "plots/samples.png",
    }
    assert all(files[name].startswith(b"\x89PNG") for name in files if name.startswith("plots/"))


def test_json_holds_the_whole_evaluation(files):
    record = json.loads(files["evaluation.json"])
    assert record == {
        "model": "mnist/3",
        "dataset": {"name": "mnist", "split": "test", "sha256": "ab" * 32},
        **EVALUATION.to_dict(),
        "history": [EPOCH],
    }


def test_without_a_history_there_are_no_curves():
    assert "plots/training-curves.png" not in make_files()


def test_the_page_holds_every_plot_and_loads_nothing(files):
    page = Page(files["report.html"].decode())
    assert page.open == []
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    inside = [base64.b64decode(picture["src"].removeprefix("data:image/png;base64,")) for picture in pictures]
    assert inside == [content for name, content in files.items() if name.startswith("plots/")]
    assert [picture["alt"] for picture in pictures] == [
        "training curves",
        "confusion matrix",
        "mistakes",
        "reliability",
        "samples",
    ]
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.elements}
    assert not any({"href", "onload", "onerror"} & set(attributes) for _, attributes in page.elements)
    assert "url(" not in page.text
    assert "@import" not in page.text
    policy = next(attributes for _, attributes in page.elements if "http-equiv" in attributes)
    assert "default-src 'none'" in policy["content"]


def test_the_page_says_the_metrics(files):
    text = Page(files["report.html"].decode()).text
    assert "mnist/3 on mnist (test)" in text
    for value in (f"{EVALUATION.accuracy:.2%}", f"{EVALUATION.loss:.4f}", f"{EVALUATION.ece:.2%}"):
        assert value in text
    for digit in range(10):
        assert f"{EVALUATION.f1[digit]:.2%}" in text
    assert "epochs" in text
    assert "none" in text


def test_everything_on_the_page_is_escaped():
    plots = {f"plots/{HOSTILE.replace('/', '')}.png": b"png"}
    tables = {HOSTILE: {HOSTILE: HOSTILE, "nested": {"list": [HOSTILE]}}}
    page = Page(render_report(HOSTILE, EVALUATION, plots, tables, HOSTILE))
    assert page.open == []
    assert {tag for tag, _ in page.elements}.isdisjoint({"script"})
    assert [attributes["src"] for tag, attributes in page.elements if tag == "img"] == ["data:image/png;base64,cG5n"]
    assert page.text.count(HOSTILE) == 6  # title, heading, table heading, name, value, command


def test_an_empty_table_is_left_out():
    assert "Nothing" not in render_report("title", EVALUATION, {}, {"Nothing": {}}, "command")
