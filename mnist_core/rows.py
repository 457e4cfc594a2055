"""Rows of a scoring job as the bytes of one file: Parquet, CSV or JSON Lines. The same rows give the same bytes."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mnist_core.scoring import FAILED, OK, Rows
from mnist_core.splits import NUM_CLASSES

SUFFIXES: Final = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl"}
"""File name suffix of each format."""


class RowWriter(Protocol):
    """Collects rows and makes one file of them."""

    def write(self, rows: Rows) -> None:
        """Add some rows."""

    def finish(self) -> bytes:
        """The content of the file."""


def make_writer(file_format: str, model_version: str, *, probabilities: bool) -> RowWriter:
    """Make a writer for one file.

    Args:
        file_format: ``parquet``, ``csv`` or ``jsonl``.
        model_version: What the column of that name says, such as ``mnist/3``.
        probabilities: Also write the ten probabilities: a list, in CSV ten columns.
    """
    schema = _schema(probabilities)
    if file_format == "parquet":
        return _ParquetWriter(schema, model_version)
    return (_CsvWriter if file_format == "csv" else _JsonLinesWriter)(schema, model_version)


def _schema(probabilities: bool) -> pa.Schema:
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("digit", pa.int8()),
        pa.field("confidence", pa.float32()),
        *([pa.field("probabilities", pa.list_(pa.float32(), NUM_CLASSES))] if probabilities else []),
        pa.field("rejected", pa.bool_()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("label", pa.int8()),
        pa.field("correct", pa.bool_()),
        pa.field("model_version", pa.string(), nullable=False),
    ]
    return pa.schema(fields)


def to_batch(rows: Rows, schema: pa.Schema, model_version: str) -> pa.RecordBatch:
    """Put rows in columns; what an item with an error has no value for is null."""
    failed = rows.failed
    labels = pa.array(rows.labels, pa.int8())
    # An error is no answer, so it is neither right nor wrong.
    truth = np.array([-1 if label is None else label for label in rows.labels], np.int8)
    columns: dict[str, Any] = {
        "id": pa.array(rows.ids, pa.string()),
        "digit": pa.array(rows.digits, pa.int8(), mask=failed),
        "confidence": pa.array(rows.confidences, pa.float32(), mask=failed),
        "rejected": pa.array(rows.rejected, pa.bool_(), mask=failed),
        "status": pa.array(np.where(failed, FAILED, OK).tolist(), pa.string()),
        "error_code": pa.array(rows.codes, pa.string()),
        "error": pa.array(rows.messages, pa.string()),
        "label": labels,
        "correct": pa.array(rows.digits == truth, pa.bool_(), mask=failed | (truth < 0)),
        "model_version": pa.array([model_version] * len(rows), pa.string()),
    }
    if "probabilities" in schema.names:
        values = pa.array(rows.probabilities.ravel(), pa.float32())
        columns["probabilities"] = pa.FixedSizeListArray.from_arrays(values, NUM_CLASSES, mask=pa.array(failed))
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


class _ParquetWriter:
    def __init__(self, schema: pa.Schema, model_version: str) -> None:
        self._schema, self._model_version = schema, model_version
        self._batches: list[pa.RecordBatch] = []

    def write(self, rows: Rows) -> None:
        self._batches.append(to_batch(rows, self._schema, self._model_version))

    def finish(self) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_batches(self._batches, self._schema), buffer, compression="zstd")
        return buffer.getvalue()


class _TextWriter:
    def __init__(self, schema: pa.Schema, model_version: str) -> None:
        self._schema, self._model_version = schema, model_version
        self._text = io.StringIO()
        self._begin()

    def _begin(self) -> None:
        """Write what stands before the rows."""

    def write(self, rows: Rows) -> None:
        for row in to_batch(rows, self._schema, self._model_version).to_pylist():
            self._write_row(row)

    def _write_row(self, row: dict[str, Any]) -> None:
        raise NotImplementedError

    def finish(self) -> bytes:
        return self._text.getvalue().encode()


class _JsonLinesWriter(_TextWriter):
    def _write_row(self, row: dict[str, Any]) -> None:
        self._text.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


class _CsvWriter(_TextWriter):
    def _begin(self) -> None:
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(name for field in self._schema.names for name in self._columns(field))

    @staticmethod
    def _columns(field: str) -> list[str]:
        return [f"probability_{digit}" for digit in range(NUM_CLASSES)] if field == "probabilities" else [field]

    def _write_row(self, row: dict[str, Any]) -> None:
        values: list[Any] = []
        for name, value in row.items():
            if name == "probabilities":
                values += value or [None] * NUM_CLASSES
            else:
                values.append({True: "true", False: "false"}[value] if isinstance(value, bool) else value)
        self._writer.writerow(values)
