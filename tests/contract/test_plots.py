from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mnist_core.evaluation import count_predictions
from mnist_core.plot_style import Png
from mnist_core.plots import (
    plot_confusion,
    plot_digits,
    plot_mistakes,
    plot_reliability,
    plot_samples,
    plot_training_curves,
)

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (60, 28, 28), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 60, dtype=np.uint8)
PROBABILITIES = GENERATOR.dirichlet(np.ones(10), 60).astype(np.float32)
HISTORY = [
    {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch}
    | {"train_accuracy": 1 - 0.1 / epoch, "validation_accuracy": 1 - 0.2 / epoch}
    for epoch in (1, 2, 3)
]
LONG_HISTORY = [HISTORY[epoch % 3] | {"epoch": epoch + 1} for epoch in range(60)]
PLOTS = {
    "digits": lambda: plot_digits(IMAGES, LABELS),
    "digits of one image": lambda: plot_digits(IMAGES[:1], LABELS[:1]),
    "training curves": lambda: plot_training_curves(HISTORY, best_epoch=2),
    "training curves, nothing marked": lambda: plot_training_curves(HISTORY),
    "training curves of one epoch": lambda: plot_training_curves(HISTORY[:1], best_epoch=1),
    "training curves of many epochs": lambda: plot_training_curves(LONG_HISTORY, best_epoch=7),
    "confusion": lambda: plot_confusion(count_predictions(PROBABILITIES, LABELS).evaluate()),
    "reliability": lambda: plot_reliability(PROBABILITIES, LABELS),
    "reliability of one image": lambda: plot_reliability(PROBABILITIES[:1], LABELS[:1]),
    "mistakes": lambda: plot_mistakes(IMAGES, LABELS, PROBABILITIES),
    "samples": lambda: plot_samples(IMAGES, LABELS, PROBABILITIES),
    "samples of one image": lambda: plot_samples(IMAGES[:1], LABELS[:1], PROBABILITIES[:1]),
}


def open_png(content):
    return Image.open(io.BytesIO(content), formats=["PNG"])


def right_answers():
    probabilities = np.full((60, 10), 0.01, np.float32)
    probabilities[np.arange(60), LABELS] = 0.91
    return probabilities


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_a_plot_is_the_same_slide_each_time_and_tells_no_date(plot):
    content = plot()
    assert plot() == content
    image = open_png(content)
    assert set(image.info) <= {"dpi"}
    assert image.size == (1440, 810)
    colours = image.convert("RGB").getcolors(maxcolors=1440 * 810)
    assert len(colours) > 100
    assert max(colours)[1] == (255, 255, 255)


def test_a_plot_owes_nothing_to_the_user_s_settings_and_leaves_them_alone(tmp_path):
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: black\nfont.size: 30\nimage.interpolation: bicubic\n")
    program = """if True:
        import sys
        import matplotlib
        import numpy as np
        from mnist_core.plots import plot_mistakes

        assert matplotlib.rcParams["font.size"] == 30
        with np.load(sys.argv[1], allow_pickle=False) as arrays:
            sys.stdout.buffer.write(plot_mistakes(**arrays))
        assert "matplotlib.pyplot" not in sys.modules
        assert matplotlib.rcParams["font.size"] == 30
    """
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, images=IMAGES, labels=LABELS, probabilities=PROBABILITIES)
    command = [sys.executable, "-c", program, str(arrays)]
    environment = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "HOME": str(tmp_path)}
    answer = subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    assert answer.stdout == plot_mistakes(IMAGES, LABELS, PROBABILITIES)


def test_a_notebook_shows_a_plot_where_it_is_a_cell_s_value():
    plot = PLOTS["confusion"]()
    assert isinstance(plot, Png)
    content, metadata = plot._repr_png_()
    assert (content, metadata) == (plot, {"width": 960})
    assert repr(plot) == f"<PNG, {len(plot):,} bytes>"


def test_the_marked_epoch_can_be_seen():
    assert plot_training_curves(HISTORY, 2) != plot_training_curves(HISTORY, 3) != plot_training_curves(HISTORY)


def test_only_the_most_confident_mistakes_are_drawn():
    probabilities, labels = right_answers(), LABELS.copy()
    labels[:30] = (labels[:30] + 1) % 10
    confidences = np.linspace(0.9, 0.5, 30, dtype=np.float32)
    probabilities[np.arange(30), LABELS[:30]] = confidences
    drawn = plot_mistakes(IMAGES, labels, probabilities)
    images = IMAGES.copy()
    images[25:] = 0
    assert plot_mistakes(images, labels, probabilities) == drawn
    images[24] = 0
    assert plot_mistakes(images, labels, probabilities) != drawn


def test_few_mistakes_take_few_rows():
    probabilities, labels = right_answers(), LABELS.copy()
    assert open_png(plot_mistakes(IMAGES, labels, probabilities)).height < 250
    labels[:6] = (labels[:6] + 1) % 10
    assert 250 < open_png(plot_mistakes(IMAGES, labels, probabilities)).height < 500


def test_the_confusion_matrix_of_a_perfect_model_can_be_drawn():
    assert open_png(plot_confusion(count_predictions(right_answers(), LABELS).evaluate())).size == (1440, 810)


def test_what_the_model_takes_a_sample_for_can_be_seen():
    right = plot_samples(IMAGES, LABELS, right_answers())
    probabilities = right_answers()
    first_three = np.flatnonzero(LABELS == 3)[0]
    probabilities[first_three] = probabilities[np.flatnonzero(LABELS == 8)[0]]
    assert plot_samples(IMAGES, LABELS, probabilities) != right
