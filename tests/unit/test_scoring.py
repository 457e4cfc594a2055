"""Tallies count exactly, rows become columns, and both survive JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_core.rows import make_writer
from mnist_core.scoring import EXAMPLES, Rows, Tally

ITEMS = st.lists(
    st.tuples(st.integers(-1, 9), st.booleans(), st.one_of(st.none(), st.integers(0, 9))), min_size=0, max_size=40
)


def make_rows(items) -> Rows:
    """Rows of (digit or -1 for an error, rejected, label)."""
    digits = np.array([digit for digit, _, _ in items], np.int8).reshape(-1)
    return Rows(
        ids=[f"f{index}.png" for index in range(len(items))],
        digits=digits,
        confidences=np.where(digits < 0, np.nan, 0.5).astype(np.float32),
        probabilities=np.full((len(items), 10), 0.1, np.float32),
        rejected=np.array([rejected and digit >= 0 for digit, rejected, _ in items], np.bool_).reshape(-1),
        codes=["image_blank" if digit < 0 else None for digit in digits],
        messages=["no ink" if digit < 0 else None for digit in digits],
        labels=[label for _, _, label in items],
    )


def tally(items) -> Tally:
    counted = Tally()
    counted.count(make_rows(items))
    return counted


@given(ITEMS)
def test_a_tally_accounts_for_every_row(items):
    counted = tally(items)
    failed = sum(digit < 0 for digit, _, _ in items)
    assert counted.items == len(items) == sum(counted.digits) + counted.num_errors
    assert counted.num_errors == failed
    assert len(counted.examples) == min(failed, EXAMPLES)
    assert sum(map(sum, counted.confusion)) == sum(digit >= 0 and label is not None for digit, _, label in items)


@given(ITEMS, ITEMS)
def test_tallies_add_up_to_that_of_all_rows_and_survive_json(first, second):
    both = tally(first)
    both.add(Tally.from_dict(json.loads(json.dumps(tally(second).to_dict()))))
    whole = tally(first + second)
    assert {**both.to_dict(), "examples": []} == {**whole.to_dict(), "examples": []}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_same_rows_give_the_same_bytes_however_they_come(file_format, probabilities):
    rows = make_rows([(3, False, 3), (-1, False, 4), (9, True, None)])
    contents = []
    for _ in range(2):
        writer = make_writer(file_format, "mnist/1", probabilities=probabilities)
        writer.write(rows)
        writer.write(make_rows([]))
        contents.append(writer.finish())
    assert contents[0] == contents[1]


def test_a_text_that_has_commas_quotes_and_lines_comes_back_from_csv():
    import csv
    import io

    rows = make_rows([(-1, False, None)])
    rows.ids[0] = 'a, "b"\nc.png'
    writer = make_writer("csv", "mnist/1", probabilities=False)
    writer.write(rows)
    (row,) = csv.DictReader(io.StringIO(writer.finish().decode(), newline=""))
    assert row["id"] == 'a, "b"\nc.png'
    assert (row["digit"], row["confidence"], row["rejected"], row["correct"]) == ("", "", "", "")
