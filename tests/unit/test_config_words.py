"""Names of files on the command line: every word is taken as it stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_core.config import PredictConfig, ScoreConfig
from mnist_core.config_sources import load_config
from mnist_core.errors import ConfigError

WORDS = [
    "a,b.png",
    ",",
    "[0-9]*.png",
    "[1].png",
    "[1]",
    "{a,b}.png",
    '{"a": 1}',
    'a"b.png',
    '"a".png',
    "'a'",
    " a.png ",
    "a b.png",
    "true",
    "null",
    "None",
    "007",
    "1e3",
    "-",
    "a\\b.png",
    "\udcff.png",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_taken_literally(word: str):
    assert load_config(PredictConfig, [word]).images == [word]
    config = load_config(ScoreConfig, [word, "--workers", "2", "b.png", "out,2024"])
    assert config.paths == [word, "b.png", "out,2024"]
    assert config.output.endswith("/out,2024")


@settings(deadline=None, max_examples=50)  # on a busy machine one may take long
@given(st.lists(st.text().filter(lambda word: not word.startswith("-")), min_size=1))
def test_so_is_any_text(words: list[str]):
    assert load_config(PredictConfig, ["--threads", "1", *words]).images == words


def test_behind_two_dashes_a_word_may_look_like_a_flag():
    assert load_config(PredictConfig, ["a.png", "--", "--b,c.png"]).images == ["a.png", "--b,c.png"]


def test_score_needs_a_name_for_its_output():
    with pytest.raises(ConfigError, match=r"PATHS: received \['in', ''\], expected a folder or an s3://, gs:// URI"):
        load_config(ScoreConfig, ["in", ""])
