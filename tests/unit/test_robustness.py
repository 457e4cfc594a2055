"""What benchmarks/robustness.py draws, and how it counts."""

from __future__ import annotations

import importlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mnist_core.predictor import Predictions
from mnist_core.splits import Split

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FONTS = Path(mpl.get_data_path(), "fonts")


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return {name: importlib.import_module(name) for name in ("_drawings", "robustness")}


@pytest.fixture(scope="module")
def drawings(modules):
    return modules["_drawings"]


@pytest.fixture(scope="module")
def robustness(modules):
    return modules["robustness"]


@pytest.fixture(scope="module")
def sans(drawings):
    return drawings.find_fonts([FONTS], 100)["DejaVu Sans"]


class Oracle:
    """Answers with the brightest pixel of the first row, 0 to 9, and finds strange what its last pixel says."""

    def predict(self, images):
        probabilities = np.full((len(images), 10), 0.01, np.float32)
        probabilities[np.arange(len(images)), images[:, 0, :10].argmax(axis=1)] = 0.91
        return Predictions(probabilities, images[:, -1, -1] / np.float32(100))


def marked(digits, strangeness):
    images = np.zeros((len(digits), 28, 28), np.uint8)
    images[np.arange(len(digits)), 0, digits] = 255
    images[:, -1, -1] = strangeness
    return images


def test_one_plain_file_is_taken_of_each_family_with_digits(drawings):
    fonts = drawings.find_fonts([FONTS], 100)
    assert list(fonts) == sorted(fonts)
    assert fonts["DejaVu Sans"].name == "DejaVuSans.ttf"
    assert fonts["STIXGeneral"].name == "STIXGeneral.ttf"
    assert not fonts.keys() & {"cmex10", "cmsy10", "STIXSizeOneSym"}  # symbols


def test_of_more_families_some_are_taken_from_first_to_last(drawings):
    every, some = list(drawings.find_fonts([FONTS], 100)), list(drawings.find_fonts([FONTS], 4))
    assert len(some) == 4
    assert (some[0], some[-1]) == (every[0], every[-1])


def test_a_folder_without_fonts_has_none(drawings, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert drawings.find_fonts([tmp_path, tmp_path / "missing"], 20) == {}


@pytest.mark.parametrize(("sign", "holes"), [("1", 0), ("6", 1), ("8", 2), ("A", 1), ("F", 0)])
def test_holes_are_counted(drawings, sans, sign, holes):
    font = drawings.ImageFont.truetype(sans, 64)
    assert drawings.count_holes(np.asarray(drawings._draw_alone(font, sign)) < 128) == holes


def test_letters_are_left_out_that_a_digit_looks_like(drawings):
    assert not set(drawings.LETTERS) & set("OolIiSsZzBbgqDGTJLQCcYyUu" + drawings.DIGITS)
    assert len(set(drawings.LETTERS)) == len(drawings.LETTERS) >= 15


def test_characters_are_dark_on_light_in_many_sizes_and_places_and_decoded(drawings, sans):
    files, signs, which = drawings.draw_characters("03", [sans], 20, np.random.default_rng(0))
    assert (signs, which) == (["0"] * 20 + ["3"] * 20, [0] * 40)
    sizes, places = set(), set()
    for data in files:
        with Image.open(drawings.io.BytesIO(data)) as sheet:
            tones = np.asarray(sheet)
            assert (sheet.format, sheet.mode) == ("PNG", "L")
        assert np.median(tones) >= 190
        assert tones.min() <= 90
        edges = np.concatenate([tones[0], tones[-1], tones[:, 0], tones[:, -1]])
        assert len(set(edges.tolist())) == 1  # nothing is cut off
        rows, columns = np.nonzero(tones < 150)
        sizes.add(np.ptp(rows))
        places.add((rows.min(), columns.min()))
    assert len(sizes) > 10
    assert len(places) > 30
    images, refused = drawings.decode_all(files)
    assert not refused.any()
    assert images.max(axis=(1, 2)).min() > 200


def test_what_the_decoder_refuses_is_counted_and_not_raised(drawings, sans):
    good = drawings.draw_character("7", sans, np.random.default_rng(0))
    images, refused = drawings.decode_all([good, b"no image"])
    assert refused.tolist() == [False, True]
    assert images[0].any()
    assert not images[1].any()


def test_a_scribble_is_a_line_unlike_the_next(drawings):
    rng = np.random.default_rng(0)
    images, refused = drawings.decode_all([drawings.draw_scribble(rng) for _ in range(12)])
    assert not refused.any()
    assert len({image.tobytes() for image in images}) == 12
    assert (images > 127).mean(axis=(1, 2)) == pytest.approx(0.22, abs=0.18)


def test_the_seed_decides_what_is_drawn(drawings, robustness, sans):
    def draw(seed):
        drawn, labels, _ = robustness.draw_all({"DejaVu Sans": sans}, (1, 1, 2), seed)
        assert labels == list(drawings.DIGITS)
        return np.concatenate([images for images, _ in drawn.values()])

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def test_accuracy_calibration_and_refusal_are_in_percent(robustness):
    digits = np.arange(1000) % 10
    strangeness = np.zeros(1000)
    strangeness[:10] = 120  # 1% above the model's own threshold, of which the limit for 0.5% splits five off
    strangeness[:5] = 200
    test = Split(marked(digits, strangeness), digits.astype(np.uint8))
    uci = Split(marked(digits[:100], 0), np.where(digits[:100] == 3, 4, digits[:100]).astype(np.uint8))
    fashion = marked(np.zeros(10, int), [50, 110, 110, 110, 150, 150, 250, 250, 250, 250])
    figures = robustness.judge_test(Oracle(), test, uci, fashion)
    assert figures["mnist"] == 100
    assert figures["uci-digits"] == pytest.approx(90)
    assert figures["calibration error"] == pytest.approx(9, abs=0.01)
    assert figures["rejected: mnist"] == pytest.approx(1)
    assert figures["rejected: fashion-mnist"] == pytest.approx(90)
    assert figures["rejected: fashion-mnist, with 0.5% of mnist"] == pytest.approx(60)
    assert not any("fashion" in name for name in robustness.judge_test(Oracle(), test, uci, None))


def test_fashion_is_skipped_with_a_line_where_it_is_not(robustness, tmp_path, monkeypatch, capsys):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path))
    assert robustness.find_fashion(None, download=False) is None
    assert "skipped: fashion-mnist" in capsys.readouterr().err


def test_the_summary_comes_first_and_is_held_against_the_bounds(robustness, capsys):
    figures = {"mnist": 99.0, "font A": 80.0, "uci-digits": 95.0, "corruptions": 94.9, "calibration error": 0.3}
    robustness.report("mnist/1", [figures, figures | {"font A": 90.0}], json_only=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["mnist", "uci-digits", "corruptions", "calibration", "font"]
    assert "must uci-digits: 95.0 >= 95: met" in lines
    assert "must corruptions: 94.9 >= 95: NOT MET" in lines
    assert "must calibration error: 0.3 <= 0.3: met" in lines
