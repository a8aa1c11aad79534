"""Description of a click log: its label, its dense and categorical columns, and how its rows are split.

A TOML file (`--columns`) gives the description of a user's data. Those of Criteo's data sets are constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlperf.benchmarks.data_sets import DENSE_FEATURES, TABLES
from mlperf.data.schema import CRITEO, RowSchema

Source = str | int  # the name of a column in the header, or its position, from 1


class Transform(StrEnum):
    """What the model gets of a dense value x; of a missing value, it gets 0.

    log1p: ln(1 + max(x, 0)). standardize: (x - mean) / standard deviation, of the training rows. none: x.
    """

    LOG1P = "log1p"
    STANDARDIZE = "standardize"
    NONE = "none"


class IdKind(StrEnum):
    """How the text of an id becomes a 64-bit key.

    hexadecimal: up to 16 digits. integer: a decimal of 64 bits, signed or unsigned. word: any text, of whose bytes
    XXH64 is taken.
    """

    HEXADECIMAL = "hexadecimal"
    INTEGER = "integer"
    WORD = "word"


@dataclass(frozen=True)
class LabelColumn:
    """The label. values: the texts of label 0 and of label 1."""

    source: Source
    values: tuple[str, str] = ("0", "1")


@dataclass(frozen=True)
class DenseColumn:
    """A dense feature. is_integer: whether only whole numbers of 32 bits are allowed; otherwise decimals."""

    source: Source
    transform: Transform = Transform.LOG1P
    is_integer: bool = True


@dataclass(frozen=True)
class CategoricalColumn:
    """A categorical feature, with a table of its own.

    separator: one character between the ids of a field; None: the field is one id.
    ids: number of ids that are kept of each field. A field with fewer is filled up with the empty id.
    """

    source: Source
    kind: IdKind = IdKind.WORD
    separator: str | None = None
    ids: int = 1


@dataclass(frozen=True)
class SplitByShare:
    """The last rows, or random ones, are test and validation rows.

    test, validation: shares of the rows, in (0, 1) and [0, 1). is_random: whether rows are chosen by a hash of the
    seed and their number.
    """

    test: float
    validation: float = 0.0
    is_random: bool = False


@dataclass(frozen=True)
class SplitByValue:
    """The texts in a column decide; rows with another text are training rows."""

    source: Source
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitByFile:
    """Files of each split, relative to the folder of `--raw-data-file`."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()


Split = SplitByShare | SplitByValue | SplitByFile


@dataclass(frozen=True)
class ColumnsDescription:
    """The columns of a click log and its splits.

    split: None for Criteo's data sets, which are split by days.
    separator: one character between fields; None: from the name of the file, "," for .csv, otherwise a tab.
    has_header: whether the first row of each file has the names of the columns.
    missing: texts of a missing value, besides the empty one.
    width: number of columns of a text without a header; None: that of its first row. A prepared data set has it.
    """

    label: LabelColumn
    dense: tuple[DenseColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    split: Split | None = None
    separator: str | None = None
    has_header: bool = False
    missing: tuple[str, ...] = ()
    width: int | None = None

    @property
    def schema(self) -> RowSchema:
        """The layout of the rows in the binary file."""
        return RowSchema(len(self.dense), tuple(column.ids for column in self.categorical))

    @property
    def stores_floats(self) -> bool:
        """Whether the dense columns of the binary file are the bits of float32 values; otherwise int32.

        Stored values are not transformed yet; NaN is a missing value.
        """
        return not all(column.is_integer and column.transform is Transform.LOG1P for column in self.dense)


CRITEO_COLUMNS = ColumnsDescription(
    label=LabelColumn(1),
    dense=tuple(DenseColumn(2 + feature) for feature in range(DENSE_FEATURES)),
    categorical=tuple(
        CategoricalColumn(2 + DENSE_FEATURES + table, IdKind.HEXADECIMAL) for table in range(TABLES)
    ),
    separator="\t",
    width=CRITEO.columns,
)
