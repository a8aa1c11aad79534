"""Types of Arrow columns."""

from __future__ import annotations

from typing import Any

from mlperf.data.columns.description import LabelColumn
from mlperf.data.columns.plan import Column


def is_list(kind: Any) -> bool:
    """Return whether values of a type are lists."""
    import pyarrow as pa

    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def value_type(kind: Any) -> Any:
    """Return the type of the values of a list, and of what a dictionary contains."""
    import pyarrow as pa

    if is_list(kind):
        kind = kind.value_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def family(kind: Any) -> str:
    """Return the name of a group of types, as messages show it."""
    import pyarrow as pa

    tests = {
        "integers": (pa.types.is_integer,),
        "floats": (pa.types.is_floating,),
        "decimals": (pa.types.is_decimal,),
        "booleans": (pa.types.is_boolean,),
        "dates": (pa.types.is_date,),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
        "nulls": (pa.types.is_null,),
    }
    return next((name for name, each in tests.items() if any(test(kind) for test in each)), str(kind))


def decoded(values: Any) -> Any:
    """Return a column without a dictionary, and lists of a fixed size as others."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(values.type):
        return values.cast(pa.list_(values.type.value_type))
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def as_text(values: Any, column: Column | None = None) -> Any:
    """Return values as `pyarrow.LargeBinaryArray`, written as in a text."""
    import pyarrow as pa

    if pa.types.is_boolean(values.type) and isinstance(column, LabelColumn) and column.values == ("0", "1"):
        values = values.cast(pa.int8())
    if family(values.type) != "text":
        values = values.cast(pa.string())
    return values.cast(pa.large_binary())
