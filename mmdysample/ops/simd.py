"""Vectors inside Numba kernels: what the compiler would not vectorise by itself.

LLVM cannot know that the arrays of a kernel do not overlap, and has no way to turn rows into
columns in registers. These functions say both. They are for use in kernels (see
:mod:`mmdysample.ops.native`) alone, check nothing, and are lowered to the vectors that the
processor has: AVX, SSE or NEON. A vector has eight numbers; a wide one, for AVX-512, sixteen. Where
a function says so, single numbers may stand for vectors: what is written once serves the channels
that are left over, rounded in the same way.

They read and write by pointers. Numba counts the references to an array wherever a function gets
it, by atomic operations that cost more than the arithmetic on eight numbers; it does not count
pointers. An index of a pointer has no test for negative numbers either.
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
        value = _shuffle(builder, *pair, lanes)
        builder.store(value, _address(builder, target_, index, value.type), align=_align(target))
        return context.get_dummy_value()

    return types.none(target, index, a, b), generate


@intrinsic
def prefetch(context, source, index):
    """Bring the cache line of ``source[index]`` near; any address will do."""

    def generate(context, builder, signature, arguments):
        whole, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole]),
            'llvm.prefetch.p0',
        )
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        # To read, into the nearest cache, data rather than instructions.
        builder.call(function, [address, *(ir.Constant(whole, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(source, index), generate


def _splatter(lanes: int, text: str) -> Callable:
    def splat(context, number):
        vector = Vector(number, lanes)

        def generate(context, builder, signature, arguments):
            return _splat(builder, context.get_value_type(vector), arguments[0])

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
def store_pixels(context, target, index, row, column, width):
    """Write ``row * width + column``, of whole numbers, to eight places of int32."""

    def generate(context, builder, signature, arguments):
        target, index, row, column, width = arguments
        kind = ir.VectorType(ir.IntType(32), LANES)
        width = _splat(builder, kind, width)
        pixels = builder.add(
            builder.mul(builder.fptosi(row, kind), width), builder.fptosi(column, kind)
        )
        builder.store(pixels, _address(builder, target, index, kind), align=4)
        return context.get_dummy_value()

    return types.none(target, index, row, column, types.int32), generate


@intrinsic
def total(context, a):
    """Sum of a vector's numbers."""

    def generate(context, builder, signature, arguments):
        vector, width = arguments[0], a.lanes
        while width > 1:  # halves onto each other
            width //= 2
            lanes = [(i + width) % a.lanes if i < width else i for i in range(a.lanes)]
            vector = builder.fadd(vector, _shuffle(builder, vector, vector, lanes))
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.scalar(a), generate


@intrinsic
def evens_and_odds(context, a):
    """Two vectors, a tuple: every other number of a wide one, from the first on and the second."""
    vector = Vector(a.scalar, a.lanes // 2)
    pair = types.UniTuple(vector, 2)

    def generate(context, builder, signature, arguments):
        values = [
            _shuffle(builder, arguments[0], arguments[0], list(range(first, a.lanes, 2)))
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
                    vectors[i] = _shuffle(builder, a, b, low)
                    vectors[i + width] = _shuffle(builder, a, b, high)
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


def _splat(builder, kind, value):
    first = builder.insert_element(
        ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    return _shuffle(builder, first, first, [0] * kind.count)


def _shuffle(builder, a, b, lanes: list[int]):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _address(builder, base, index, kind):
    """Address of a number, as that of a vector."""
    return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())


def _align(source) -> int:
    return source.dtype.bitwidth // 8
