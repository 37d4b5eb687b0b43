"""Vectors inside Numba kernels: what the compiler would not vectorise by itself.

LLVM cannot know that the arrays of a kernel do not overlap, and has no way to turn rows into
columns in registers. These functions say both. They are for use in kernels (see
:mod:`mmdysample.ops.native`) alone, check nothing, and are lowered to the vectors that the
processor has: AVX, SSE or NEON. A vector has eight numbers; a wide one, for AVX-512, sixteen. Where
a function says so, single numbers may stand for vectors: what is written once serves the channels
that are left over, rounded in the same way. Vectors are read and written by the functions of
:mod:`mmdysample.ops.pointers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
"""Numbers in a vector, unless it is said to be wide."""


class Vector(types.Type):
    """Numba's type of a vector.

    Args:
        scalar (numba.types.Float): The type of its numbers.
        lanes (int): How many there are.
    """

    def __init__(self, scalar: types.Float, lanes: int = LANES) -> None:
        self.scalar, self.lanes = scalar, lanes
        super().__init__(f'Vector({scalar}, {lanes})')


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        scalar = manager.lookup(kind.scalar).get_value_type()
        super().__init__(manager, kind, ir.VectorType(scalar, kind.lanes))


@intrinsic
def length(context, a):
    """How many numbers a vector has; a number has one."""
    count = a.lanes if isinstance(a, Vector) else 1

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.intp, count)

    return types.intp(a), generate


@intrinsic
def number(context, value, like):
    """``value`` in the type of ``like``."""

    def generate(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], value, like)

    return like(value, like), generate


def _splatter(lanes: int, text: str) -> Callable:
    def splat(context, number):
        vector = Vector(number, lanes)

        def generate(context, builder, signature, arguments):
            return splat_number(builder, context.get_value_type(vector), arguments[0])

        return vector(number), generate

    splat.__doc__ = text
    return intrinsic(splat)


splat = _splatter(LANES, 'A vector of eight times the same number.')
wide = _splatter(2 * LANES, 'A vector of sixteen times the same number.')


def _operation(generate: Callable) -> Callable:
    """A function of two vectors or numbers, from one that builds an instruction of LLVM."""

    @intrinsic
    def operation(context, a, b):
        return a(a, b), lambda context, builder, signature, values: generate(builder, *values)

    return operation


def _choice(comparison: str) -> Callable:
    """Numbers of ``yes`` where ``a`` compares with ``b``, of ``no`` where not or either is NaN."""

    @intrinsic
    def choice(context, a, b, yes, no):
        def generate(context, builder, signature, values):
            return builder.select(builder.fcmp_ordered(comparison, *values[:2]), *values[2:])

        return yes(a, b, yes, no), generate

    return choice


add = _operation(lambda builder, a, b: builder.fadd(a, b))
sub = _operation(lambda builder, a, b: builder.fsub(a, b))
mul = _operation(lambda builder, a, b: builder.fmul(a, b))
div = _operation(lambda builder, a, b: builder.fdiv(a, b))
where_less = _choice('<')
where_at_most = _choice('<=')


@intrinsic
def one_minus(context, a):
    """``1 - a`` of a vector or number."""

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(a)
        one = [1.0] * a.lanes if isinstance(a, Vector) else 1.0
        return builder.fsub(ir.Constant(kind, one), arguments[0])

    return a(a), generate


@intrinsic
def fma(context, a, b, c):
    """``a * b + c`` of vectors or numbers, rounded once where the processor can, else twice."""

    def generate(context, builder, signature, arguments):
        return _call(context, builder, 'fmuladd', a, arguments)

    return a(a, b, c), generate


@intrinsic
def fma_each(context, a, values, sums):
    """A tuple of ``a * value + total`` for each pair of a value and a total in two tuples."""

    def generate(context, builder, signature, arguments):
        a_, *pairs = arguments
        pairs = (cgutils.unpack_tuple(builder, pair) for pair in pairs)
        results = [
            _call(context, builder, 'fmuladd', a, [a_, value, total])
            for value, total in zip(*pairs, strict=True)
        ]
        return context.make_tuple(builder, sums, results)

    return sums(a, values, sums), generate


@intrinsic
def floor(context, a):
    """The largest whole numbers not above those of a vector."""

    def generate(context, builder, signature, arguments):
        return _call(context, builder, 'floor', a, arguments)

    return a(a), generate


@intrinsic
def exp(context, a):
    """The exponential function of a vector's numbers, NaN where they are."""

    def generate(context, builder, signature, arguments):
        if a.scalar.bitwidth == 32:
            return _exp32(context, builder, a, *arguments)
        return _call(context, builder, 'exp', a, arguments)

    return a(a), generate


def _exp32(context, builder, vector, x):
    """In float32, to two units in the last place: LLVM would call the C library eight times.

    ``exp(x) = 2**n * exp(r)`` with whole ``n`` and ``|r| <= log(2) / 2``, a Taylor polynomial of
    degree 7 for ``exp(r)``, and ``2**n`` put together from its bits. ``x`` is limited to where
    the result is a normal number.
    """
    kind = context.get_value_type(vector)
    whole = ir.VectorType(ir.IntType(32), LANES)

    def of(value: float, kind=kind):
        return ir.Constant(kind, [value] * LANES)

    def fma(a, b, c):
        return _call(context, builder, 'fmuladd', vector, [a, b, c])

    limited = builder.select(builder.fcmp_ordered('>', x, of(-87.0)), x, of(-87.0))
    limited = builder.select(builder.fcmp_ordered('<', limited, of(88.0)), limited, of(88.0))
    n = _call(context, builder, 'floor', vector, [fma(limited, of(1 / math.log(2)), of(0.5))])
    high = 0.693359375  # log(2) in two parts; n * high is exact
    r = fma(n, of(-high), limited)
    r = fma(n, of(high - math.log(2)), r)
    result = of(1 / math.factorial(7))
    for power in range(6, -1, -1):
        result = fma(result, r, of(1 / math.factorial(power)))
    bits = builder.shl(builder.add(builder.fptosi(n, whole), of(127, whole)), of(23, whole))
    result = builder.fmul(result, builder.bitcast(bits, kind))
    return builder.select(builder.fcmp_unordered('uno', x, x), x, result)


@intrinsic
def total(context, a):
    """Sum of a vector's numbers."""

    def generate(context, builder, signature, arguments):
        vector, width = arguments[0], a.lanes
        while width > 1:  # halves onto each other
            width //= 2
            lanes = [(i + width) % a.lanes if i < width else i for i in range(a.lanes)]
            vector = builder.fadd(vector, shuffle_lanes(builder, vector, vector, lanes))
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.scalar(a), generate


@intrinsic
def evens_and_odds(context, a):
    """Two vectors, a tuple: every other number of a wide one, from the first on and the second."""
    vector = Vector(a.scalar, a.lanes // 2)
    pair = types.UniTuple(vector, 2)

    def generate(context, builder, signature, arguments):
        values = [
            shuffle_lanes(builder, arguments[0], arguments[0], list(range(first, a.lanes, 2)))
            for first in (0, 1)
        ]
        return context.make_tuple(builder, pair, values)

    return pair(a), generate


@intrinsic
def transpose(context, rows):
    """Eight vectors, a tuple, whose ``i``-th is made of the ``i``-th numbers of those given."""

    def generate(context, builder, signature, arguments):
        vectors = cgutils.unpack_tuple(builder, arguments[0], LANES)
        # Exchange single numbers between neighbours, then pairs, then halves.
        width = 1
        while width < LANES:
            low = [i if not i & width else i - width + LANES for i in range(LANES)]
            high = [i + width if not i & width else i + LANES for i in range(LANES)]
            for i in range(LANES):
                if not i & width:
                    a, b = vectors[i], vectors[i + width]
                    vectors[i] = shuffle_lanes(builder, a, b, low)
                    vectors[i + width] = shuffle_lanes(builder, a, b, high)
            width *= 2
        return context.make_tuple(builder, signature.return_type, vectors)

    return rows(rows), generate


def _call(context, builder, name: str, vector, arguments):
    """Call LLVM's own function of that name, from vectors to a vector or numbers to a number."""
    kind = context.get_value_type(vector)
    if isinstance(vector, Vector):
        suffix = f'v{vector.lanes}f{vector.scalar.bitwidth}'
    else:
        suffix = f'f{vector.bitwidth}'
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(arguments)),
        f'llvm.{name}.{suffix}',
    )
    return builder.call(function, arguments)


def splat_number(builder, kind, value):
    """Build the instructions that make a vector of one number."""
    first = builder.insert_element(
        ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    return shuffle_lanes(builder, first, first, [0] * kind.count)


def shuffle_lanes(builder, a, b, lanes: list[int]):
    """Build the instruction that makes a vector of numbers of ``a``, and behind them of ``b``."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)
