"""How the rows of the text are divided: into days, the last of which is for evaluation, or into splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.splitmix64 import splitmix64
from mlperf.util.compiled_sources import compiled_with

Indices = npt.NDArray[np.int64]
Part = tuple[int, slice | Indices]  # the number of a day or split, and its rows among those of a block
PartNumbers = npt.NDArray[np.uint8]

TRAIN, TEST, VALIDATION = range(3)  # the splits, in the order of SPLITS


class Division(ABC):
    """Divides the rows of a block."""

    @abstractmethod
    def parts(self, file: int, first_row: int, kept: Indices, given: PartNumbers | None) -> list[Part]:
        """Return each part that has rows of a block, and which ones.

        file: number of the input file. first_row: number of good rows of the file before the block.
        kept: the numbers, within the block, of the rows that are kept, int64 [K], increasing.
        given: the part of each kept row according to its contents, uint8 [K], if a column decides.
        """


@dataclass(frozen=True)
class ByFile(Division):
    """part_of_file: the part to which the rows of each input file belong."""

    part_of_file: tuple[int, ...]

    def parts(self, file: int, first_row: int, kept: Indices, given: PartNumbers | None) -> list[Part]:
        """See Division."""
        return [(self.part_of_file[file], slice(0, len(kept)))]


@dataclass(frozen=True)
class ByPosition(Division):
    """ends: the number of good rows of the only input file before the end of each part."""

    ends: tuple[int, ...]

    def parts(self, file: int, first_row: int, kept: Indices, given: PartNumbers | None) -> list[Part]:
        """See Division."""
        cuts = np.searchsorted(kept + first_row, [0, *self.ends])
        return [
            (part, slice(int(cuts[part]), int(cuts[part + 1])))
            for part in range(len(self.ends))
            if cuts[part] < cuts[part + 1]
        ]


@dataclass(frozen=True)
class ByHash(Division):
    """A hash of the seed and the number of a row decides. test, validation: the shares of these splits."""

    seed: int
    test: float
    validation: float

    def parts(self, file: int, first_row: int, kept: Indices, given: PartNumbers | None) -> list[Part]:
        """See Division."""
        words = np.random.SeedSequence(self.seed, spawn_key=(2,)).generate_state(1, np.uint64)
        shares = np.array([self.test, self.test + self.validation]) * 2.0**53
        return _by_number(_hashed_parts(words[0], kept + first_row, *shares.astype(np.uint64)))


@dataclass(frozen=True)
class ByValue(Division):
    """The parser determines the split from a column."""

    def parts(self, file: int, first_row: int, kept: Indices, given: PartNumbers | None) -> list[Part]:
        """See Division."""
        assert given is not None
        return _by_number(given)


def _by_number(numbers: PartNumbers) -> list[Part]:
    found = ((part, np.flatnonzero(numbers == part)) for part in (TRAIN, TEST, VALIDATION))
    return [(part, rows) for part, rows in found if len(rows)]


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.prepare.splitmix64")
def _hashed_parts(key: np.uint64, rows: Indices, test: np.uint64, test_and_validation: np.uint64) -> PartNumbers:
    parts = np.empty(len(rows), np.uint8)
    for each in range(len(rows)):
        value = splitmix64(key, rows[each]) >> np.uint64(11)
        parts[each] = TEST if value < test else VALIDATION if value < test_and_validation else TRAIN
    return parts


def rows_by_share(rows: int, test: float, validation: float) -> Sequence[int]:
    """Return the rows of each split if the last ones are test and then validation rows."""
    test_rows, validation_rows = round(rows * test), round(rows * validation)
    return rows - test_rows - validation_rows, test_rows, validation_rows
