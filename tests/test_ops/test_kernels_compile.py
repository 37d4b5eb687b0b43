"""Every kernel compiles for a GPU without one: the interpreter forgives what this does not."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import pytest

from mmdysample.ops.backend import HAS_TRITON


@pytest.mark.skipif(not HAS_TRITON, reason='triton is not installed')
def test_kernels_compile_ahead_of_time():
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == '27'


def compile_all() -> int:
    """Compile the kernels' variants to machine code; returns how many."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmdysample.ops.dysample import kernel as dysample
    from mmdysample.ops.reassembly import kernel as reassembly

    count = 0

    def compile_one(function, dtype, **constants):
        nonlocal count
        signature = {}
        for name in function.arg_names:
            if name in constants:
                signature[name] = 'constexpr'
            elif name.endswith('_ptr'):
                kept_wide = ('Offset_ptr', 'Scope_ptr', 'GradX_ptr', 'GradOffset_ptr')
                signature[name] = '*fp32' if name in kept_wide else f'*{dtype}'
            else:
                signature[name] = 'fp32' if name == 'scope_factor' else 'i32'
        places = {(function.arg_names.index(k),): v for k, v in constants.items()}
        source = ASTSource(function, signature, constexprs=places)
        compiled = triton.compile(source, target=GPUTarget('cuda', 90, 32))
        assert compiled.asm['cubin']
        count += 1

    tile = dict(CHANNELS=24, ROWS=4, COLS=8, SCALE=2, NEAREST=False)
    for dtype, last, shuffled in product(('fp32', 'bf16', 'fp16'), (False, True), (False, True)):
        options = dict(
            **tile,
            BLOCK=32 if last else 1,
            CHANNELS_LAST=last,
            OFFSET_LAST=last,
            SHUFFLED=shuffled,
            DYNAMIC=shuffled,
            INDEX=tl.int64 if dtype == 'fp16' else tl.int32,
        )
        compile_one(dysample.dysample_forward_kernel, dtype, **options)
        wanted = dict(NEED_X=True, NEED_OFFSET=True)
        compile_one(dysample.dysample_backward_kernel, dtype, **options, **wanted)
    tile = dict(SIDE=5, SCALE=2, PIXELS=128, BLOCK=8, INDEX=tl.int32)
    for function in ('reassemble_kernel', 'similarity_kernel', 'spread_kernel'):
        compile_one(getattr(reassembly, function), 'fp32', **tile)
    return count


if __name__ == '__main__':
    print(compile_all())
