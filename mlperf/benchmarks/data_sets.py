"""The data sets: how their text is prepared and their ids are used."""

from __future__ import annotations

from dataclasses import dataclass

DENSE_FEATURES = 13
TABLES = 26
TERABYTE_DAYS = 24  # one text file a day
KAGGLE_DAYS = 7  # the single text file is divided into parts of equal size


@dataclass(frozen=True)
class DataSetTraits:
    """A data set that `--data-set` selects.

    name: value of `--data-set`.
    prepared_name: name of the prepared files if only the raw data is named.
    has_days: whether the text has a file for each day; otherwise it is one file.
    has_archive: whether the original implementation also writes its prepared rows to a NumPy archive.
    keeps_negative: whether negative integers are kept; otherwise they become 0.
    first_index: number of the first id of each column.
    limits_rows: whether ids are numbered without a limit, and taken modulo the rows of their table when they are
        read; then `--max-ind-range` limits these rows. Otherwise ids are taken modulo it before they are numbered.
    has_columns_file: whether a file (`--columns`) describes its columns; otherwise they are those of Criteo.
    has_reference_files: whether its reference implementation has files of its own, day_K_dense.npy and others,
        which are read in place and can be written.
    """

    name: str
    prepared_name: str
    has_days: bool = True
    has_archive: bool = False
    keeps_negative: bool = False
    first_index: int = 0
    limits_rows: bool = False
    has_reference_files: bool = False
    has_columns_file: bool = False


KAGGLE = DataSetTraits(
    "kaggle", prepared_name="kaggleAdDisplayChallenge_processed", has_days=False, has_archive=True
)
TERABYTE = DataSetTraits("terabyte", prepared_name="terabyte_processed")
# As the reference implementation of DLRM-DCNv2 prepares the Terabyte logs. It reserves the ids 0 and 1.
TERABYTE_DCNV2 = DataSetTraits(
    "terabyte_dcnv2",
    prepared_name="terabyte_dcnv2_processed",
    keeps_negative=True,
    first_index=2,
    limits_rows=True,
    has_reference_files=True,
)
# Click logs of users. Row 0 of each table is that of the empty id.
COLUMNS = DataSetTraits(
    "columns", prepared_name="columns_processed", has_days=False, first_index=1, has_columns_file=True
)
DATA_SETS = {traits.name: traits for traits in (KAGGLE, TERABYTE, TERABYTE_DCNV2, COLUMNS)}
