"""Memory inside Numba kernels: vectors and numbers are read and written by pointers.

Numba counts the references to an array wherever a function gets it, by atomic operations that cost
more than the arithmetic on eight numbers; it does not count pointers. An index of a pointer has no
test for negative numbers either. Vectors are those of :mod:`mmdysample.ops.simd`; like those,
these functions are for use in kernels alone and check nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mmdysample.ops.simd import LANES, Vector, shuffle_lanes, splat_number


@intrinsic
def pointer(context, array):
    """The address of an array's first number; the array must live on, see :func:`keep`."""

    def generate(context, builder, signature, arguments):
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def keep(context, arrays):
    """Do nothing: Numba frees an array behind the last place where its name stands."""

    def generate(context, builder, signature, arguments):
        return context.get_dummy_value()

    return types.none(arrays), generate


@intrinsic
def skip(context, base, count):
    """The address so many numbers behind a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return base(base, count), generate


@intrinsic
def load(context, source, index):
    """``source[index : index + 8]`` as a vector."""
    vector = Vector(source.dtype)
    return vector(source, index), _load


@intrinsic
def load_like(context, source, index, like):
    """The numbers from ``source[index]`` on, as many as ``like`` has: a vector or one number."""
    return like(source, index, like), _load


def _load(context, builder, signature, arguments):
    kind = context.get_value_type(signature.return_type)
    address = _address(builder, *arguments[:2], kind)
    return builder.load(address, align=_align(signature.args[0]))


@intrinsic
def store(context, target, index, value):
    """Write a vector or number to ``target[index]`` and behind."""

    def generate(context, builder, signature, arguments):
        target_, index_, value_ = arguments
        builder.store(value_, _address(builder, target_, index_, value_.type), align=_align(target))
        return context.get_dummy_value()

    return types.none(target, index, value), generate


@intrinsic
def load_each(context, source, indices, like):
    """A tuple: what :func:`load_like` gives for each of a tuple of indices."""
    one = like(source, types.intp, like)
    every = types.UniTuple(like, len(indices))

    def generate(context, builder, signature, arguments):
        source, indices, like = arguments
        values = [
            _load(context, builder, one, (source, index, like))
            for index in cgutils.unpack_tuple(builder, indices)
        ]
        return context.make_tuple(builder, every, values)

    return every(source, indices, like), generate


@intrinsic
def store_each(context, target, indices, values):
    """Write each of a tuple of vectors or numbers to the index in its place of another tuple."""

    def generate(context, builder, signature, arguments):
        target_, *pairs = arguments
        pairs = (cgutils.unpack_tuple(builder, pair) for pair in pairs)
        for index, value in zip(*pairs, strict=True):
            address = _address(builder, target_, index, value.type)
            builder.store(value, address, align=_align(target))
        return context.get_dummy_value()

    return types.none(target, indices, values), generate


@intrinsic
def store_in_turn(context, target, index, a, b):
    """Write the numbers of two vectors in turn, or two numbers, from ``target[index]`` on."""

    def generate(context, builder, signature, arguments):
        target_, index, *pair = arguments
        if isinstance(a, Vector):
            lanes = [lane + half * a.lanes for lane in range(a.lanes) for half in (0, 1)]
        else:
            kind = ir.VectorType(pair[0].type, 1)
            pair = [builder.bitcast(value, kind) for value in pair]
            lanes = [0, 1]
        value = shuffle_lanes(builder, *pair, lanes)
        builder.store(value, _address(builder, target_, index, value.type), align=_align(target))
        return context.get_dummy_value()

    return types.none(target, index, a, b), generate


def _prefetcher(writes: int, text: str) -> Callable:
    def prefetch(context, source, index):
        def generate(context, builder, signature, arguments):
            whole, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole]),
                'llvm.prefetch.p0',
            )
            address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
            # Into the nearest cache, data rather than instructions.
            builder.call(function, [address, *(ir.Constant(whole, n) for n in (writes, 3, 1))])
            return context.get_dummy_value()

        return types.none(source, index), generate

    prefetch.__doc__ = text
    return intrinsic(prefetch)


prefetch = _prefetcher(0, 'Bring the cache line of ``source[index]`` near; any address will do.')
prefetch_to_write = _prefetcher(1, 'The same for a line that will be written to.')


@intrinsic
def store_pixels(context, target, index, row, column, width):
    """Write ``row * width + column``, of whole numbers, to eight places of int32."""

    def generate(context, builder, signature, arguments):
        target, index, row, column, width = arguments
        kind = ir.VectorType(ir.IntType(32), LANES)
        width = splat_number(builder, kind, width)
        pixels = builder.add(
            builder.mul(builder.fptosi(row, kind), width), builder.fptosi(column, kind)
        )
        builder.store(pixels, _address(builder, target, index, kind), align=4)
        return context.get_dummy_value()

    return types.none(target, index, row, column, types.int32), generate


def _address(builder, base, index, kind):
    """Address of a number, as that of a vector."""
    return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())


def _align(source) -> int:
    return source.dtype.bitwidth // 8
