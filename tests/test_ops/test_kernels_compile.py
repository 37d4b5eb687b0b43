"""Every kernel compiles for a GPU without one: the interpreter forgives what this does not."""

from __future__ import annotations

import os
import re
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
    assert done.stdout.split()[-1] == '78'


class Compiler:
    """Take the place of a kernel: compile what a launch would run, and run nothing.

    Args:
        function (JITFunction): The kernel.
        compiled (list): Where each compiled kernel goes.
    """

    def __init__(self, function, compiled):
        self.function, self.compiled = function, compiled

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps=4, **constants):
        """Compile with the hints that Triton derives from the arguments of a launch."""
        import torch
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        pointers = {torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16'}
        signature, hints = {}, {}
        constants = dict(constants)
        for i, (param, value) in enumerate(zip(self.function.params, args, strict=False)):
            name, divisible = param.name, False
            if isinstance(value, torch.Tensor):
                signature[name] = pointers[value.dtype]
                divisible = value.data_ptr() % 16 == 0
            elif isinstance(value, float):
                signature[name] = 'fp32'
            elif param.do_not_specialize:
                signature[name] = 'i32'
            elif value == 1:
                constants[name] = 1
            else:
                signature[name] = 'i32'
                divisible = value % 16 == 0
            if divisible:
                hints[(i,)] = [['tt.divisibility', 16]]
        signature |= dict.fromkeys(constants, 'constexpr')
        signature = {name: signature[name] for name in self.function.arg_names}
        places = {(self.function.arg_names.index(k),): v for k, v in constants.items()}
        source = ASTSource(self.function, signature, constexprs=places, attrs=hints)
        target = GPUTarget('cuda', 90, 32)
        kernel = triton.compile(source, target=target, options={'num_warps': num_warps})
        assert kernel.asm['cubin']
        assert len(hints) == kernel.asm['ttir'].count('tt.divisibility = 16')
        self.compiled.append((self.function.__name__, constants, kernel))


def compile_all():
    """Compile what launches of all kinds would run."""
    import torch

    from mmdysample.ops.dysample import launch
    from mmdysample.ops.dysample.spec import SamplingSpec
    from mmdysample.ops.reassembly import operator

    compiled = []
    kernels = {
        launch: ('dysample_forward_kernel', 'dysample_backward_kernel'),
        operator: ('reassemble_kernel', 'similarity_kernel', 'transposed_kernel'),
    }
    for module, names in kernels.items():
        for name in names:
            setattr(module, name, Compiler(getattr(module, name), compiled))
    launch._processors = lambda device: 132

    floats = (torch.float32, torch.bfloat16, torch.float16)
    formats = (torch.contiguous_format, torch.channels_last)
    sizes = ((256, 128, 256), (64, 32, 48), (96, 25, 42))  # one for each tile of NCHW
    for dtype, layout, style, (c, h, w) in product(floats, formats, ('lp', 'pl'), sizes):
        launch.INT32_ELEMENTS = 0 if dtype == torch.float16 else 2**31
        x = torch.zeros(1, c, h, w, dtype=dtype).to(memory_format=layout)
        shape = (1, 32, h, w) if style == 'lp' else (1, 8, 2 * h, 2 * w)
        offset = torch.zeros(shape).to(memory_format=layout)
        scope = offset.clone() if style == 'pl' else None
        spec = SamplingSpec.make(2, 4, style, None, 'bilinear', dynamic=scope is not None)
        out = launch.sample(x, offset, scope, spec, (2 * h, 2 * w))
        gradients = [None if t is None else torch.zeros_like(t) for t in (x, offset, scope)]
        launch.differentiate(out, x, offset, scope, spec, *gradients)
    for c, h, w in sizes[1:]:
        coarse, fine = torch.zeros(1, c, h, w), torch.zeros(1, c, 2 * h, 2 * w)
        weights = torch.zeros(1, 25, 2 * h, 2 * w)
        operator.reassemble_triton(coarse, weights, 5, 1, 2)
        operator.similarity_triton(fine, coarse, 5, 1, 2)
        operator.transposed_triton(weights, fine, 5, 1, 2)
    return compiled


def check(name, constants, kernel):
    """Read in the compiled code what decides the memory traffic of a kernel."""
    ptx, loop = kernel.asm['ptx'], kernel.asm['ttgir'].partition('scf.for')[2]
    # Register spills are ptxas's and not seen here: this is about arrays of the compiler's.
    assert '.local' not in ptx, f'{name} declares local memory'
    if constants.get('CHANNELS_LAST'):
        scalar = re.findall(r'(?:red|atom)\.global(?!\S*\.v[248])\S*', ptx)
        assert not scalar, f'{name} adds channels one by one: {scalar[0]}'
        vectors = re.findall(r'ld\.global\S*\.v[248]', ptx)
        few = constants['BLOCK'] < 64  # less than a vector for each thread
        assert few or len(vectors) >= 4, f'{name} reads channels one by one'
    elif not constants.get('SHUFFLED', True):  # with 'pl', large maps still do
        assert 'convert_layout' not in loop, f'{name} passes channels through shared memory'
    if name == 'similarity_kernel':
        body = loop.partition('scf.yield')[0]
        assert 'convert_layout' not in body and 'tt.reduce' not in body, f'{name} exchanges data'


if __name__ == '__main__':
    results = compile_all()
    for result in results:
        check(*result)
    print(len(results))
