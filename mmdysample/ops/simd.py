"""Vectors of eight numbers inside Numba kernels: what the compiler would not vectorise by itself.

LLVM cannot know that the arrays of a kernel do not overlap, and has no way to turn rows into
columns in registers. These functions say both. They are for use in kernels (see
:mod:`mmdysample.ops.native`) alone, take flat arrays and ``np.uint64`` indices, check nothing, and
are lowered to the vectors that the processor has: AVX, SSE or NEON.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
"""Numbers in a vector."""


class Vector(types.Type):
    """Numba's type of a vector.

    Args:
        scalar (numba.types.Float): The type of its numbers.
    """

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        super().__init__(f'Vector({scalar}, {LANES})')


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        scalar = manager.lookup(kind.scalar).get_value_type()
        super().__init__(manager, kind, ir.VectorType(scalar, LANES))


@intrinsic
def load(context, array, index):
    """``array[index : index + 8]`` as a vector."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments)
        return builder.load(pointer, align=_align(array))

    return vector(array, index), generate


@intrinsic
def store(context, array, index, value):
    """Write a vector to ``array[index : index + 8]``."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments)
        builder.store(arguments[2], pointer, align=_align(array))
        return context.get_dummy_value()

    return types.none(array, index, value), generate


@intrinsic
def splat(context, number):
    """A vector of eight times the same number."""
    vector = Vector(number)

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(vector)
        first = builder.insert_element(
            ir.Constant(kind, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)

    return vector(number), generate


@intrinsic
def add(context, a, b):
    """Sum of two vectors."""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), generate


@intrinsic
def sub(context, a, b):
    """Difference of two vectors."""

    def generate(context, builder, signature, arguments):
        return builder.fsub(*arguments)

    return a(a, b), generate


@intrinsic
def mul(context, a, b):
    """Product of two vectors."""

    def generate(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return a(a, b), generate


@intrinsic
def div(context, a, b):
    """Quotient of two vectors."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return a(a, b), generate


@intrinsic
def fma(context, a, b, c):
    """``a * b + c`` of vectors or numbers, rounded once where the processor can, else twice."""

    def generate(context, builder, signature, arguments):
        return _call(context, builder, 'fmuladd', a, arguments)

    return a(a, b, c), generate


@intrinsic
def floor(context, a):
    """The largest whole numbers not above those of a vector."""

    def generate(context, builder, signature, arguments):
        return _call(context, builder, 'floor', a, arguments)

    return a(a), generate


@intrinsic
def exp(context, a):
    """The exponential function of a vector's numbers."""

    def generate(context, builder, signature, arguments):
        return _call(context, builder, 'exp', a, arguments)

    return a(a), generate


@intrinsic
def where_less(context, a, b, yes, no):
    """Numbers of ``yes`` where ``a < b``, of ``no`` elsewhere and where either is NaN."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered('<', *arguments[:2]), *arguments[2:])

    return yes(a, b, yes, no), generate


@intrinsic
def where_at_most(context, a, b, yes, no):
    """Numbers of ``yes`` where ``a <= b``, of ``no`` elsewhere and where either is NaN."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered('<=', *arguments[:2]), *arguments[2:])

    return yes(a, b, yes, no), generate


@intrinsic
def store_pixels(context, array, index, row, column, width):
    """Write ``row * width + column``, of whole numbers, to eight places of an int32 array."""

    def generate(context, builder, signature, arguments):
        _, _, row, column, width = arguments
        kind = ir.VectorType(ir.IntType(32), LANES)
        first = builder.insert_element(
            ir.Constant(kind, ir.Undefined), width, ir.Constant(ir.IntType(32), 0)
        )
        width = _shuffle(builder, first, first, [0] * LANES)
        row, column = builder.fptosi(row, kind), builder.fptosi(column, kind)
        pointer = _pointer(context, builder, signature, arguments)
        builder.store(builder.add(builder.mul(row, width), column), pointer, align=4)
        return context.get_dummy_value()

    return types.none(array, index, row, column, types.int32), generate


@intrinsic
def total(context, a):
    """Sum of a vector's numbers."""

    def generate(context, builder, signature, arguments):
        vector, width = arguments[0], LANES
        while width > 1:  # halves onto each other
            width //= 2
            lanes = [(i + width) % LANES if i < width else i for i in range(LANES)]
            vector = builder.fadd(vector, _shuffle(builder, vector, vector, lanes))
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.scalar(a), generate


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
        suffix = f'v{LANES}f{vector.scalar.bitwidth}'
    else:
        suffix = f'f{vector.bitwidth}'
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(arguments)),
        f'llvm.{name}.{suffix}',
    )
    return builder.call(function, arguments)


def _shuffle(builder, a, b, lanes: list[int]):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
    return builder.shuffle_vector(a, b, mask)


def _pointer(context, builder, signature, arguments):
    """Address of an element, as that of a vector."""
    array = signature.args[0]
    data = context.make_array(array)(context, builder, arguments[0]).data
    vector = ir.VectorType(context.get_data_type(array.dtype), LANES)
    return builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer())


def _align(array) -> int:
    return array.dtype.bitwidth // 8
