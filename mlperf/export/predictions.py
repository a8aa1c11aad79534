"""Files of predictions: the number, the label and the predicted probability of each row, written as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.npy import write_header
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import atomic_file, write_fully

# row: number of the row in its split or text, from 0. label: 0, 1 or, if it is not known, -1.
ROW = np.dtype([("row", "<i8"), ("label", "i1"), ("probability", "<f4")])

Rows = npt.NDArray[np.void]  # of the dtype ROW

_PROBLEM = "the predictions cannot be written"
_ROWS_AT_A_TIME = 1 << 18


class Writer(ABC):
    """Writes rows in one format."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Append rows, ROW [n]."""

    def close(self) -> None:  # noqa: B027
        """Complete the file."""

    def abandon(self) -> None:  # noqa: B027
        """Release what a file needs that is not completed. The file is still open, and removed afterwards."""


class PredictionsFile:
    """Numbers rows and appends them to a file."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self._path = path
        self._writer = writer
        self.rows = 0

    def append(self, probabilities: torch.Tensor, labels: torch.Tensor | None) -> None:
        """Append rows with these probabilities and labels of 0 and 1, float32 [n] each; None: labels not known."""
        for start in range(0, len(probabilities), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            values = probabilities[part].numpy()
            rows = np.empty(len(values), ROW)
            rows["row"] = np.arange(self.rows, self.rows + len(values))
            rows["label"] = -1 if labels is None else labels[part].numpy()
            rows["probability"] = values
            with system_failures(self._path, _PROBLEM):
                self._writer.write(rows)
            self.rows += len(rows)


@contextmanager
def predictions_file(path: Path) -> Iterator[PredictionsFile]:
    """Open a new file of predictions, which replaces `path` when the `with` block ends without an error.

    The ending of `path` is the format: .npy, .csv or .parquet. RunError if it cannot be written.
    """
    with ExitStack() as stack:
        with system_failures(path, _PROBLEM):
            writer = _WRITERS[path.suffix](stack.enter_context(atomic_file(path)))
            stack.callback(writer.abandon)
        yield PredictionsFile(path, writer)
        with system_failures(path, _PROBLEM):
            writer.close()
            stack.pop_all().close()  # moves the file into place


class _NpyWriter(Writer):
    """A NumPy array of ROW. Its length is written when it is known: headers have room for the digits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows = 0
        write_header(file, ROW, (0,))

    def write(self, rows: Rows) -> None:
        self._file.flush()
        write_fully(self._file.fileno(), rows.view(np.uint8).data)
        self._rows += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        write_header(self._file, ROW, (self._rows,))


class _CsvWriter(Writer):
    """Text with a header. Probabilities have up to 9 significant digits, which give the same float32 when read."""

    def __init__(self, file: BinaryIO) -> None:
        from mlperf.export.csv_rows import csv_rows  # compiles its loop on import

        self._file = file
        self._format = csv_rows
        file.write(b"row,label,probability\n")

    def write(self, rows: Rows) -> None:
        self._file.write(self._format(rows["row"], rows["label"], rows["probability"]).data)


class _ParquetWriter(Writer):
    """Parquet with the columns of ROW, a row group for each part."""

    def __init__(self, file: BinaryIO) -> None:
        pyarrow, parquet = _pyarrow()
        self._table = pyarrow.table
        types = {"row": pyarrow.int64(), "label": pyarrow.int8(), "probability": pyarrow.float32()}
        fields = [pyarrow.field(name, kind, nullable=False) for name, kind in types.items()]
        self._schema = pyarrow.schema(fields)
        self._writer = parquet.ParquetWriter(file, self._schema)

    def write(self, rows: Rows) -> None:
        columns = [np.ascontiguousarray(rows[name]) for name in self._schema.names]
        self._writer.write_table(self._table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        with suppress(
            Exception
        ):  # otherwise the package does this when the file is closed, and prints the failure
            self._writer.close()


_WRITERS: dict[str, Callable[[BinaryIO], Writer]] = {
    ".npy": _NpyWriter,
    ".csv": _CsvWriter,
    ".parquet": _ParquetWriter,
}


def file_bytes(path: Path, rows: int) -> int:
    """Return about how large a file of predictions becomes."""
    text_bytes = len(str(rows)) + len(",0,0.123456789\n")
    return rows * (text_bytes if path.suffix == ".csv" else ROW.itemsize)


def require_format(path: Path) -> None:
    """Raise UsageError if a package that writes the format of `path` is missing. Called before the run."""
    if path.suffix == ".parquet":
        try:
            _pyarrow()
        except ImportError:
            raise UsageError(
                f"--save-predictions={path}: requires the package pyarrow (pip install pyarrow)"
            ) from None


def _pyarrow() -> tuple[Any, Any]:
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet
