"""The DySample module under PyTorch's machinery: compilers, exporters, copies, processes."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
import torch.multiprocessing as mp
from oracles.dysample import random_case
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from mmdysample import DySample
from mmdysample.ops import dysample, reassemble
from mmdysample.ops.backend import HAS_NUMBA, HAS_TRITON, INTERPRETED
from mmdysample.ops.dysample import SamplingSpec, operator
from mmdysample.upsamplers import build_upsampler

needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason='needs numba')
BACKENDS = [
    'torch',
    pytest.param('native', marks=needs_numba),
    pytest.param('triton', marks=pytest.mark.skipif(not HAS_TRITON, reason='needs triton')),
]


def make_module(style='lp', backend='auto', **kwargs) -> DySample:
    up = DySample(8, groups=2, style=style, dyscope=True, backend=backend, **kwargs)
    nn.init.normal_(up.offset.weight)
    nn.init.normal_(up.scope.weight)
    return up


def gradients(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    out.square().sum().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    return [out.detach(), x.grad, *grads]


@pytest.mark.parametrize('backend', BACKENDS)
def test_compile_in_one_graph_with_dynamic_shapes(device, backend):
    up = make_module('lp', backend).to(device)
    compiled = torch.compile(up, backend='aot_eager', fullgraph=True, dynamic=True)
    for shape in ((1, 8, 4, 5), (2, 8, 3, 4)):
        x = torch.randn(shape, device=device)
        torch.testing.assert_close(gradients(compiled, x), gradients(up, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('backend', BACKENDS[1:])
def test_operators_keep_their_contract(device, dynamic, backend):
    """Schema, fake implementation, autograd registration and symbolic shapes, by PyTorch's test."""
    tensors, options, grad = random_case(device, dynamic=dynamic, groups=1)
    leaves = [None if t is None else t.requires_grad_() for t in tensors.values()]
    size = options.pop('size')
    options = (*options.values(),)
    torch.library.opcheck(operator._operator, (*leaves, *options, *size, backend))
    plain = [None if t is None else t.detach() for t in leaves]
    arguments = (grad, *plain, *options, backend, True, True)
    torch.library.opcheck(operator._backward_operator, arguments)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_vmap(device, style, backend, memory_format):
    """Over maps, and over the gradients of single images."""
    up = make_module(style, backend).to(device)
    x = torch.randn(4, 8, 2, 3, device=device).to(memory_format=memory_format).unflatten(0, (2, 2))
    expected = torch.stack([up(image) for image in x])
    torch.testing.assert_close(torch.func.vmap(up)(x), expected, atol=1e-5, rtol=1e-5)

    parameters = {k: v.detach() for k, v in up.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(up, parameters, (image,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for image, *found in zip(x, *each.values(), strict=True):
        up.zero_grad()
        up(image).square().sum().backward()
        for gradient, parameter in zip(found, up.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-3, rtol=1e-4)


@needs_numba
@pytest.mark.parametrize('reach', [0.5, 30.0])  # rows in several bands, and in one
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_native_results_are_the_same_for_any_number_of_threads(memory_format, reach, monkeypatch):
    monkeypatch.setattr('mmdysample.ops.native.ALONE', 1)  # threads even for so little work
    tensors, options, grad = random_case(
        share=24, groups=2, height=35, width=17, dynamic=True, reach=reach, x_format=memory_format
    )
    before = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3, 16):
            torch.set_num_threads(number)
            leaves = [t.clone().requires_grad_() for t in tensors.values()]
            out = dysample(*leaves, **options, backend='native')
            results.append([out, *torch.autograd.grad(out, leaves, grad)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for first, value in zip(results[0], other, strict=True):
            assert torch.equal(first, value)


@needs_numba
@pytest.mark.parametrize('reach', [0.1, 3.0, 9.0, 17.9, math.inf, math.nan])
def test_every_other_band_reaches_rows_of_its_own(reach):
    """Threads add to the gradient of x in such bands at once."""
    from mmdysample.ops.dysample.native import _bands

    height = 50
    spec = SamplingSpec.make(2, 1, 'lp', None, 'bilinear', dynamic=False)
    offset = torch.empty(1, 8, height, 3).uniform_(-1, 1)
    offset[:, :4], offset[0, -1, 20, 1] = 99, 1  # the first half is across
    bands = _bands(offset * reach, spec, height)
    assert bands == {0.1: 6, 3.0: 6, 9.0: 5, 17.9: 3}.get(reach, 1)
    parents = torch.arange(height)[:, None]
    reached = []
    for i in range(2):
        rows = parents + (i - 0.5) / 2 + 0.25 * reach * offset[0, 4 + 2 * i : 6 + 2 * i].double()
        top = rows.clamp(0, height - 1).floor().clamp(max=height - 2)
        reached.append(torch.stack([top, top + 1]).movedim(2, 0).flatten(1))
    reached = torch.cat(reached, 1)  # by input row, what its output pixels read
    cuts = [height * band // bands for band in range(bands + 1)]
    rows = [set(reached[a:b].flatten().tolist()) for a, b in itertools.pairwise(cuts)]
    for first, second in zip(rows, rows[2:], strict=False):
        assert not first & second


class _Upsampled(torch.utils.data.Dataset):
    """Images that loader processes upsample."""

    def __init__(self, up):
        self.up = up

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.up(torch.full((1, 8, 9, 10), float(index)))[0]


@needs_numba
def test_workers_forked_after_the_first_use(monkeypatch):
    monkeypatch.setattr('mmdysample.ops.native.ALONE', 1)  # threads even for so little work
    up = make_module(backend='native')
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        images = _Upsampled(up)
        expected = [images[i] for i in range(4)]
        loader = torch.utils.data.DataLoader(
            images, batch_size=None, num_workers=2, multiprocessing_context='fork'
        )
        found = list(loader)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@needs_numba
def test_a_second_process_compiles_nothing():
    """Nor does it import PyTorch's compiler, which takes longer than everything else."""
    script = (
        'import sys, torch; from mmdysample.ops import dysample\n'
        'dysample(torch.ones(1, 8, 2, 2), torch.zeros(1, 32, 2, 2), backend="native")\n'
        'from mmdysample.ops.dysample import native_forward\n'
        'print(sum(native_forward.forward_planes.stats.cache_misses.values()))\n'
        'print("torch._dynamo" in sys.modules)\n'
    )
    command = [sys.executable, '-W', 'ignore', '-c', script]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ['0', 'False']


@needs_numba
def test_a_mode_sees_the_operator():
    """What follows calls, such as fake tensors, must meet an operator that it can follow."""
    x, offset = torch.randn(1, 8, 3, 4), torch.randn(1, 32, 3, 4)
    with FakeTensorMode() as mode:
        fakes = mode.from_tensor(x), mode.from_tensor(offset)
        assert dysample(*fakes, backend='native').shape == (1, 8, 6, 8)
        kernels = mode.from_tensor(torch.rand(1, 9, 6, 8))
        assert reassemble(fakes[0], kernels, kernel_size=3, backend='native').shape == (1, 8, 6, 8)
    graph = make_fx(lambda *inputs: dysample(*inputs, backend='native'))(x, offset)
    names = {str(node.target) for node in graph.graph.nodes}
    assert 'mmdysample.dysample.default' in names


@pytest.mark.slow
def test_inductor(device):
    up = make_module('pl').to(device)
    x = torch.randn(2, 8, 4, 5, device=device)
    compiled = torch.compile(up, fullgraph=True)
    torch.testing.assert_close(gradients(compiled, x), gradients(up, x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ('g++', 'clang++', 'c++'))), reason='Inductor needs a C++ compiler'
)
@pytest.mark.parametrize('name', ['dysample', 'dysample_plus', 'dysample_s', 'dysample_s_plus'])
def test_inductor_trains_with_free_sizes(device, name):
    up = build_upsampler(name, 16).to(device)
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.compiler.reset()
    compiled = torch.compile(up, fullgraph=True, dynamic=True)
    for size in ((4, 5), (7, 3)):
        x = torch.randn(2, 16, *size, device=device)
        torch.testing.assert_close(gradients(compiled, x), gradients(up, x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_compiled_weights_get_full_gradients_under_autocast(device, style):
    up = make_module(style).to(device)
    compiled = torch.compile(up, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 8, 4, 5, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        found, expected = gradients(compiled, x), gradients(up, x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_export_with_dynamic_height_and_width(device, style, backend):
    up = make_module(style, backend).to(device).eval()
    height, width = torch.export.Dim('height', min=2), torch.export.Dim('width', min=2)
    program = torch.export.export(
        up,
        (torch.randn(1, 8, 4, 5, device=device),),
        dynamic_shapes=({2: height, 3: width},),
    )
    x = torch.randn(1, 8, 6, 3, device=device)
    torch.testing.assert_close(program.module()(x), up(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_trace_follows_the_input_size(style, memory_format):
    up = make_module(style).eval()
    example = torch.randn(1, 8, 4, 5).to(memory_format=memory_format)
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(up, example)
    for size in ((7, 3), (1, 5), (1, 1)):
        x = torch.randn(2, 8, *size).to(memory_format=memory_format)
        torch.testing.assert_close(traced(x), up(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('init', ['bilinear', 'nearest'])
def test_trace_of_a_single_pixel(init):
    up = make_module(init=init).eval()
    x = torch.randn(1, 8, 1, 1)
    torch.testing.assert_close(torch.jit.trace(up, x)(x), up(x))


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda up: pickle.loads(pickle.dumps(up))])
def test_copies_are_equal_and_independent(clone):
    up = make_module(backend='torch')
    twin = clone(up)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(twin(x), up(x))
    assert twin.backend == 'torch'
    nn.init.zeros_(twin.offset.weight)
    assert not torch.equal(twin(x), up(x))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_a_half_precision_module_keeps_its_positions(dtype, style):
    """Under autocast as in a converted module: against float64 on the same rounded weights."""
    up = make_module(style)
    for parameter in up.parameters():
        parameter.data = parameter.data.to(dtype).float()
    x = torch.randn(1, 8, 4, 1024).to(dtype)
    with torch.no_grad():
        exact = copy.deepcopy(up).double()(x.double())
        with torch.autocast('cpu', dtype=dtype):
            mixed = up(x)
        converted = copy.deepcopy(up).to(dtype)(x)
    # Rounding of the result, and of positions (1024 px in float32) times the steepest slope.
    bound = torch.finfo(dtype).eps / 2 * exact.abs() + 1024 * 2**-22 * 2 * x.abs().max()
    for out in (mixed, converted):
        assert out.dtype == dtype
        assert ((out.double() - exact).abs() <= bound).all()


@pytest.mark.skipif(not HAS_TRITON, reason='PyTorch samples a wider copy, and keeps it')
@pytest.mark.parametrize(
    ('dtype', 'kept'), [(torch.float16, 0), (torch.bfloat16, 0), (torch.float32, 1)]
)
def test_no_wider_copy_of_half_features_is_kept(device, dtype, kept):
    class Copies(TorchDispatchMode):
        storages: dict[int, StorageWeakRef] = {}

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            if getattr(out, 'shape', None) == x.shape and out.dtype == torch.float32:
                storage = out.untyped_storage()
                self.storages[storage.data_ptr()] = StorageWeakRef(storage)
            return out

    up = make_module(backend='triton').to(device)
    x = torch.randn(1, 8, 4, 5).to(device, dtype).requires_grad_()
    with Copies() as copies:
        out = up(x.clone())  # in float32 the clone itself is what is kept
    assert copies.storages
    assert sum(not storage.expired() for storage in copies.storages.values()) == kept
    out.sum().backward()
    assert x.grad.isfinite().all()


def _train_one_process(rank: int, folder: str, backends: list[str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    for backend in backends:
        torch.manual_seed(0)
        up = make_module(backend=backend)
        x = torch.randn(2, 8, 3, 4)
        parallel = DistributedDataParallel(up)
        for _ in range(2):  # a parameter without gradient would be reported in the second round
            parallel.zero_grad()
            parallel(x[rank : rank + 1]).square().sum().backward()
        torch.save([p.grad for p in up.parameters()], f'{folder}/{backend}{rank}.pt')
    torch.distributed.barrier()
    # Torn down in order, the group can deadlock: its destructor joins gloo's thread while holding
    # the GIL, which that thread wants in order to release its last work item.
    os._exit(0)


def test_two_processes_average_their_gradients(tmp_path):
    # Processes on the CPU: the kernel takes part where it is interpreted.
    backends = ['torch', 'triton'] if HAS_TRITON and INTERPRETED else ['torch']
    mp.spawn(_train_one_process, (str(tmp_path), backends), nprocs=2)
    torch.manual_seed(0)
    up = make_module(backend='torch')
    _, _, *whole = gradients(up, torch.randn(2, 8, 3, 4))
    for backend in backends:
        first, second = (torch.load(tmp_path / f'{backend}{rank}.pt') for rank in range(2))
        for a, b, expected in zip(first, second, whole, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(2 * a, expected, atol=1e-4, rtol=1e-4)
