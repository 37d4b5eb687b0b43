"""DySample's sampling as one Triton kernel forward and one backward.

A program owns a tile of output pixels of one channel group. It finds their positions once and then
walks over channels, so that memory traffic is little more than reading ``x`` and writing the
result. A position is an integer pixel plus a float32 displacement: exact on maps of any width.

Maps are dense, NCHW or (``*_LAST``) channels last; ``INDEX`` is int64 where int32 cannot count
their elements.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ('H', 'W', 'out_h', 'out_w')
"""Triton makes nothing of these: a width that it knows to be a multiple of 16 leads it to vectors
of output pixels, and every channel then passes through shared memory. Nor does each new size of an
image compile the kernels anew."""


@triton.jit
def _tile(
    out_h,
    out_w,
    G,
    chunks,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    INDEX: tl.constexpr,
):
    """This program's image, group, chunk of its channels, output rows and output columns."""
    program = tl.program_id(0).to(INDEX)
    tiles_w = tl.cdiv(out_w, COLS)
    tiles_h = tl.cdiv(out_h, ROWS)
    pixel = tl.arange(0, ROWS * COLS)
    if CHANNELS_LAST:
        pixel = pixel[:, None]  # the channels of a block go along the second axis
    out_x = program % tiles_w * COLS + pixel % COLS
    program = program // tiles_w
    out_y = program % tiles_h * ROWS + pixel // COLS
    program = program // tiles_h
    chunk = program % chunks
    program = program // chunks
    return program // G, program % G, chunk, out_y, out_x


@triton.jit
def _projection(
    n,
    g,
    out_y,
    out_x,
    H,
    W,
    G,
    SCALE: tl.constexpr,
    SHUFFLED: tl.constexpr,
    OFFSET_LAST: tl.constexpr,
):
    """Where a pixel's x component lies in offset and scope, and how far from it the y component."""
    if SHUFFLED:  # (N, 2 * G, sH, sW)
        planes = G
        plane, y, x = g, out_y, out_x
        H, W = H * SCALE, W * SCALE
    else:  # (N, 2 * G * s * s, H, W)
        planes = G * SCALE * SCALE
        plane = (g * SCALE + out_y % SCALE) * SCALE + out_x % SCALE
        y, x = out_y // SCALE, out_x // SCALE
    if OFFSET_LAST:
        return ((n * H + y) * W + x) * (2 * planes) + plane, g * 0 + planes
    return ((n * (2 * planes) + plane) * H + y) * W + x, (g * 0 + planes) * H * W


@triton.jit
def _position(
    Offset_ptr,
    Scope_ptr,
    out,  # coordinate of the output pixel
    length,  # of x on this axis
    inside,
    scope_factor,
    SCALE: tl.constexpr,
    DYNAMIC: tl.constexpr,
    NEAREST: tl.constexpr,
):
    """One axis: lower neighbour, weight of the upper one, is it clamped, offset, gate."""
    offset = tl.load(Offset_ptr, mask=inside, other=0.0).to(tl.float32)
    if DYNAMIC:
        gate = tl.sigmoid(tl.load(Scope_ptr, mask=inside, other=0.0).to(tl.float32))
    else:
        gate = tl.full(offset.shape, 1.0, tl.float32)
    pixel = out // SCALE
    moved = offset * gate * scope_factor
    if not NEAREST:
        moved += ((out % SCALE).to(tl.float32) - (SCALE - 1) / 2) / SCALE
    low = -pixel.to(tl.float32)
    high = (length - 1 - pixel).to(tl.float32)
    clamped = (moved <= low) | (moved >= high)
    moved = tl.where(moved < low, low, moved)  # NaN passes both comparisons: to the weights,
    moved = tl.where(moved > high, high, moved)
    whole = tl.floor(moved)
    step = tl.where(moved == moved, whole, 0.0).to(tl.int32)  # but never into an address
    return pixel + step, moved - whole, clamped, offset, gate


@triton.jit
def _corners(left, top, H, W, step):
    """Places of the four neighbours in a map whose pixels lie ``step`` apart.

    Every place is a product with ``step``: the compiler then sees that all four are as aligned as
    ``step`` is, and channels-last maps are read and added to in vectors.
    """
    right, bottom = tl.minimum(left + 1, W - 1), tl.minimum(top + 1, H - 1)
    top, bottom = top * W, bottom * W
    return (
        (top + left) * step,
        (top + right) * step,
        (bottom + left) * step,
        (bottom + right) * step,
    )


@triton.jit
def _load(Map_ptr, nw, ne, sw, se, mask):
    """The values of the four neighbours."""
    return (
        tl.load(Map_ptr + nw, mask=mask, other=0.0).to(tl.float32),
        tl.load(Map_ptr + ne, mask=mask, other=0.0).to(tl.float32),
        tl.load(Map_ptr + sw, mask=mask, other=0.0).to(tl.float32),
        tl.load(Map_ptr + se, mask=mask, other=0.0).to(tl.float32),
    )


@triton.jit
def _strides(n, channel, C, H, W, CHANNELS_LAST: tl.constexpr):
    """Of a dense map: place of a channel of an image, and steps between channels and pixels."""
    if CHANNELS_LAST:
        return n * H * W * C + channel, 1, C
    return (n * C + channel) * H * W, H * W, 1


@triton.jit(do_not_specialize=SIZES)
def dysample_forward_kernel(
    X_ptr,  # input, (N, C, H, W)
    Offset_ptr,  # input, projected offsets
    Scope_ptr,  # input, projected scopes; not read unless DYNAMIC
    Out_ptr,  # output, (N, C, out_h, out_w) in the memory format of x
    H,
    W,
    out_h,
    out_w,
    G,
    chunks,  # programs that share the channels of a group
    scope_factor,
    CHANNELS: tl.constexpr,  # of one program
    BLOCK: tl.constexpr,  # channels at a time: 1 unless CHANNELS_LAST
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SCALE: tl.constexpr,
    SHUFFLED: tl.constexpr,  # style 'pl'
    DYNAMIC: tl.constexpr,
    NEAREST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    OFFSET_LAST: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Sample x at the positions that offset and scope give."""
    n, g, chunk, out_y, out_x = _tile(out_h, out_w, G, chunks, ROWS, COLS, CHANNELS_LAST, INDEX)
    inside = (out_y < out_h) & (out_x < out_w)
    place, y_step = _projection(n, g, out_y, out_x, H, W, G, SCALE, SHUFFLED, OFFSET_LAST)
    Offset_ptr += place
    Scope_ptr += place
    left, right_weight, _, _, _ = _position(
        Offset_ptr, Scope_ptr, out_x, W, inside, scope_factor, SCALE, DYNAMIC, NEAREST
    )
    Offset_ptr += y_step
    Scope_ptr += y_step
    top, bottom_weight, _, _, _ = _position(
        Offset_ptr, Scope_ptr, out_y, H, inside, scope_factor, SCALE, DYNAMIC, NEAREST
    )
    left_weight = 1 - right_weight
    top_weight = 1 - bottom_weight
    nw_weight, ne_weight = top_weight * left_weight, top_weight * right_weight
    sw_weight, se_weight = bottom_weight * left_weight, bottom_weight * right_weight

    C = G * chunks * CHANNELS
    first = (g * chunks + chunk) * CHANNELS
    base, channel_step, pixel_step = _strides(n, first, C, H, W, CHANNELS_LAST)
    nw, ne, sw, se = _corners(left, top, H, W, pixel_step)
    X_ptr += base
    base, out_channel_step, pixel_step = _strides(n, first, C, out_h, out_w, CHANNELS_LAST)
    Out_ptr += base + (out_y * out_w + out_x) * pixel_step
    for start in range(0, CHANNELS, BLOCK):
        c, mask = start + g * 0, inside
        if CHANNELS_LAST:
            c = c + tl.arange(0, BLOCK)[None, :]
            mask = inside & (c < CHANNELS)
        nw_x, ne_x, sw_x, se_x = _load(X_ptr + c * channel_step, nw, ne, sw, se, mask)
        value = nw_x * nw_weight + ne_x * ne_weight + sw_x * sw_weight + se_x * se_weight
        tl.store(Out_ptr + c * out_channel_step, value, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def dysample_backward_kernel(
    Grad_ptr,  # input, gradient of the result, in the memory format of x
    X_ptr,  # input, (N, C, H, W)
    Offset_ptr,  # input, projected offsets
    Scope_ptr,  # input, projected scopes; not read unless DYNAMIC
    GradX_ptr,  # output, float32 zeros in the memory format of x; where NEED_X
    GradOffset_ptr,  # output, as offset; where NEED_OFFSET
    GradScope_ptr,  # output, as scope; where NEED_OFFSET and DYNAMIC
    H,
    W,
    out_h,
    out_w,
    G,
    scope_factor,
    CHANNELS: tl.constexpr,  # of a group
    BLOCK: tl.constexpr,  # channels at a time: 1 unless CHANNELS_LAST
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SCALE: tl.constexpr,
    SHUFFLED: tl.constexpr,  # style 'pl'
    DYNAMIC: tl.constexpr,
    NEAREST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    OFFSET_LAST: tl.constexpr,
    INDEX: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_OFFSET: tl.constexpr,
):
    """Gradients of x, offset and scope; the positions are computed anew."""
    n, g, _, out_y, out_x = _tile(out_h, out_w, G, 1, ROWS, COLS, CHANNELS_LAST, INDEX)
    inside = (out_y < out_h) & (out_x < out_w)
    place, y_step = _projection(n, g, out_y, out_x, H, W, G, SCALE, SHUFFLED, OFFSET_LAST)
    Offset_ptr += place
    Scope_ptr += place
    left, right_weight, clamped_x, offset_x, gate_x = _position(
        Offset_ptr, Scope_ptr, out_x, W, inside, scope_factor, SCALE, DYNAMIC, NEAREST
    )
    Offset_ptr += y_step
    Scope_ptr += y_step
    top, bottom_weight, clamped_y, offset_y, gate_y = _position(
        Offset_ptr, Scope_ptr, out_y, H, inside, scope_factor, SCALE, DYNAMIC, NEAREST
    )
    left_weight = 1 - right_weight
    top_weight = 1 - bottom_weight

    C = G * CHANNELS
    base, channel_step, pixel_step = _strides(n, g * CHANNELS, C, H, W, CHANNELS_LAST)
    nw, ne, sw, se = _corners(left, top, H, W, pixel_step)
    X_ptr += base
    GradX_ptr += base
    base, out_channel_step, pixel_step = _strides(n, g * CHANNELS, C, out_h, out_w, CHANNELS_LAST)
    Grad_ptr += base + (out_y * out_w + out_x) * pixel_step
    along_x = tl.zeros(offset_x.shape, tl.float32)
    along_y = tl.zeros(offset_x.shape, tl.float32)
    for start in range(0, CHANNELS, BLOCK):
        c, mask = start + g * 0, inside
        if CHANNELS_LAST:
            c = c + tl.arange(0, BLOCK)[None, :]
            mask = inside & (c < CHANNELS)
        grad = tl.load(Grad_ptr + c * out_channel_step, mask=mask, other=0.0).to(tl.float32)
        if NEED_OFFSET:
            nw_x, ne_x, sw_x, se_x = _load(X_ptr + c * channel_step, nw, ne, sw, se, mask)
            slope_x = grad * ((ne_x - nw_x) * top_weight + (se_x - sw_x) * bottom_weight)
            slope_y = grad * ((sw_x - nw_x) * left_weight + (se_x - ne_x) * right_weight)
            if CHANNELS_LAST:
                slope_x = tl.sum(slope_x, 1, keep_dims=True)
                slope_y = tl.sum(slope_y, 1, keep_dims=True)
            along_x += slope_x
            along_y += slope_y
        if NEED_X:
            target = GradX_ptr + c * channel_step
            upper, lower = grad * top_weight, grad * bottom_weight
            tl.atomic_add(target + nw, upper * left_weight, mask=mask, sem='relaxed')
            tl.atomic_add(target + ne, upper * right_weight, mask=mask, sem='relaxed')
            tl.atomic_add(target + sw, lower * left_weight, mask=mask, sem='relaxed')
            tl.atomic_add(target + se, lower * right_weight, mask=mask, sem='relaxed')

    if NEED_OFFSET:
        along_x = tl.where(clamped_x, 0.0, along_x) * gate_x * scope_factor
        along_y = tl.where(clamped_y, 0.0, along_y) * gate_y * scope_factor
        tl.store(GradOffset_ptr + place, along_x, mask=inside)
        tl.store(GradOffset_ptr + place + y_step, along_y, mask=inside)
        if DYNAMIC:
            tl.store(GradScope_ptr + place, along_x * offset_x * (1 - gate_x), mask=inside)
            tl.store(GradScope_ptr + place + y_step, along_y * offset_y * (1 - gate_y), mask=inside)
