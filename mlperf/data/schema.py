"""The Criteo click logs: a row of text and the row of the binary file it becomes."""

from __future__ import annotations

DENSE_FEATURES = 13
TABLES = 26
COLUMNS = 1 + DENSE_FEATURES + TABLES  # label, integers, ids
FIRST_ID = 1 + DENSE_FEATURES
ROW_BYTES = 4 * COLUMNS  # little-endian int32 each

TERABYTE_DAYS = 24
KAGGLE_DAYS = 7  # the one file of the Kaggle data is cut into this many
