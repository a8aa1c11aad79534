"""Prepare Criteo text with polars, in memory, as a baseline for `measure_preparation.py`.

    python bench/polars_pipeline.py FOLDER TARGET LIMIT

Reads FOLDER/day_0 ... day_23, parses the ids, takes them
modulo LIMIT, numbers them, permutes the training rows and writes TARGET_train.bin and TARGET_rest.bin.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

try:
    import polars as pl
except ImportError:
    sys.exit("polars_pipeline.py: error: requires polars: pip install polars")

DAYS = 24


def main() -> None:
    """Prepare the data; print seconds, peak memory in MB and the number of distinct ids of each column."""
    folder, target, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    start = time.perf_counter()
    names = [f"c{column}" for column in range(40)]
    types = dict.fromkeys(names[:14], pl.Int32) | dict.fromkeys(names[14:], pl.String)
    days = [
        pl.read_csv(folder / f"day_{day}", separator="\t", has_header=False, new_columns=names, schema=types)
        for day in range(DAYS)
    ]
    last = len(days[-1])
    table = pl.concat(days).with_columns(
        *(pl.col(name).fill_null(0).clip(lower_bound=0) for name in names[1:14]),
        *(pl.col(name).str.to_integer(base=16, dtype=pl.Int64).fill_null(0) % limit for name in names[14:]),
    )
    del days
    counts = []
    for name in names[14:]:
        ids = table[name].unique(maintain_order=True)
        numbers = pl.DataFrame({name: ids, "number": np.arange(len(ids), dtype=np.int32)})
        numbered = table.select(name).join(numbers, on=name, how="left", maintain_order="left")
        table = table.with_columns(numbered["number"].alias(name))
        counts.append(len(ids))
    rows = len(table)
    write(table.head(rows - last).sample(fraction=1.0, shuffle=True, seed=1), f"{target}_train.bin")
    write(table.tail(last), f"{target}_rest.bin")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(seconds, peak, "-".join(map(str, counts)))


def write(table: pl.DataFrame, path: str) -> None:
    """Write the rows and flush them to disk."""
    with open(path, "wb") as file:
        table.cast(pl.Int32).to_numpy(order="c").tofile(file)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
