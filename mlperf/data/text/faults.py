"""Why a line of text is bad."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Faults = npt.NDArray[np.int64]  # [faults, 4]: line in the block, reason, column (from 0), position of the field

# Reasons why a line is bad. New ones go to the end: numba keeps these numbers in the compiled code of other files.
OK, TOO_FEW, TOO_MANY, NOT_INTEGER, OUT_OF_RANGE, NOT_HEX, LONG_ID, NO_LABEL, LONG_LINE = range(9)
NOT_DECIMAL, LONG_INTEGER, OPEN_QUOTE, AFTER_QUOTE = range(9, 13)  # only of texts with columns of any kind

REASON_NAMES = {  # in the manifest
    TOO_FEW: "too few columns",
    TOO_MANY: "too many columns",
    NOT_INTEGER: "not a whole number",
    OUT_OF_RANGE: "number out of range",
    NOT_HEX: "not an id",
    LONG_ID: "id too long",
    NO_LABEL: "not a label",
    LONG_LINE: "line too long",
    NOT_DECIMAL: "not a decimal",
    LONG_INTEGER: "id out of range",
    OPEN_QUOTE: "quoted field without an end",
    AFTER_QUOTE: "text after a quoted field",
}
