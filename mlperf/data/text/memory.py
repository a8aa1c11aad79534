"""Numba intrinsics: bytes and words at addresses.

Compiled loops over text get addresses, int64, in place of arrays: numba counts the references to an array that is
passed to a function that it inlines, which takes longer than parsing a field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def generated(generate: Callable[..., Any]) -> Any:
    """Decorator: `numba.extending.intrinsic` with a type."""
    return intrinsic(generate)


@generated
def byte_at(typing: Any, address: Any) -> Any:
    """Return the byte at an address, as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), generate


@generated
def word_at(typing: Any, address: Any) -> Any:
    """Return the eight bytes at an address as a little-endian uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


def _storing(kind: Any, bits: int) -> Any:
    @generated
    def store(typing: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            builder.store(arguments[1], pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, kind), generate

    return store


store_byte = _storing(types.uint8, 8)
store_int32 = _storing(types.int32, 32)
store_word = _storing(types.uint64, 64)


@generated
def zero_bytes(typing: Any, word: Any) -> Any:
    """Return the number of bytes of a uint64 that are 0 below its lowest bit that is set; 8 if none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.cttz(arguments[0], ir.IntType(1)(0))
        return builder.lshr(zeros, ir.IntType(64)(3))

    return types.int64(types.uint64), generate


@generated
def chosen(typing: Any, condition: Any, value: Any, other: Any) -> Any:
    """Return one of two uint64, `value` if the condition holds, without a branch: varying texts mispredict it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = builder.select(*arguments)
        result.set_metadata("unpredictable", builder.module.add_metadata([]))
        return result

    return types.uint64(types.boolean, types.uint64, types.uint64), generate
