"""What every upsampler promises, run over every registered name."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mmdysample import build_upsampler, upsampler_names
from mmdysample.upsamplers import Interpolate, Upsampler

NAMES = upsampler_names()
ONLY_TWOFOLD = {'a2u', 'fade', 'fade_lite', 'freqfusion', 'indexnet'}
GUIDED = {'a2u', 'fade', 'fade_lite', 'indexnet', 'sapa_b', 'sapa_i'}
UNGUIDED = {
    *('nearest', 'bilinear', 'deconv', 'pixel_shuffle', 'carafe'),
    *('dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus'),
}
CHANNELS = 32

every_name = pytest.mark.parametrize('name', NAMES)


def build(name: str, scale_factor: int = 2, dtype: torch.dtype = torch.float32) -> Upsampler:
    """An upsampler with weights far enough from their start for every one of them to matter."""
    up = build_upsampler(name, CHANNELS, scale_factor)
    with torch.no_grad():
        for parameter in up.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return up.to(dtype)


def features(n=2, height=5, width=6, size=None, dtype=torch.float32, scale_factor=2):
    """A coarse feature and the finer one that it is upsampled towards."""
    size = size or (scale_factor * height, scale_factor * width)
    x = torch.randn(n, CHANNELS, height, width).to(dtype)
    return x, torch.randn(n, CHANNELS, *size).to(dtype)


def test_the_table_of_names():
    assert set(NAMES) >= GUIDED | UNGUIDED
    assert all(build_upsampler(name, CHANNELS).guided for name in GUIDED)
    assert not any(build_upsampler(name, CHANNELS).guided for name in UNGUIDED)


@every_name
@pytest.mark.parametrize('scale_factor', [3, 4])
def test_other_factors(name, scale_factor):
    options = dict(kernel_size=5) if name == 'deconv' else {}
    cfg = dict(type=name, **options)
    channels = 288  # divides by 32, and by 8 groups times 9 or 16 sub-positions
    try:
        up = build_upsampler(cfg, channels, scale_factor)
    except ValueError as error:
        assert re.search(f'scale_factor must be 2 .*, got {scale_factor}', str(error))
        assert name in ONLY_TWOFOLD or name not in UNGUIDED | GUIDED
        return
    assert name not in ONLY_TWOFOLD
    x = torch.randn(1, channels, 2, 3)
    size = (2 * scale_factor - 1, 3 * scale_factor - scale_factor + 1)
    assert up(x, torch.randn(1, channels, *size), size).shape == (1, channels, *size)


@every_name
@pytest.mark.parametrize('size', [(9, 12), (10, 11), (9, 11)])
def test_odd_sizes(name, size):
    up, (x, guide) = build(name).eval(), features(size=size)
    out = up(x, guide, size)
    if isinstance(up, Interpolate):
        assert torch.equal(out, F.interpolate(x, size=size, mode=up.mode))
        return
    whole_guide = F.pad(guide, (0, 12 - size[1], 0, 10 - size[0]), mode='replicate')
    assert torch.equal(out, up(x, whole_guide)[..., : size[0], : size[1]])


@every_name
def test_guide_is_required_or_ignored(name):
    up, (x, guide) = build(name).eval(), features()
    if not up.guided:
        assert torch.equal(up(x), up(x, guide))
        return
    assert not torch.equal(up(x, guide), up(x, guide.flip(1)))
    with pytest.raises(ValueError, match=r'is guided: pass guide, the \(N, 32, 10, 12\) feature'):
        up(x)
    with pytest.raises(ValueError, match='guide must have 32 channels, got 16'):
        up(x, guide[:, :16])
    with pytest.raises(ValueError, match='guide must be of batch 2 and spatial size'):
        up(x, guide[..., 1:])


@every_name
def test_channels_last_equals_contiguous(name):
    # FreqFusion's gradients are in the hundreds, and float32 rounds them by more than the bound.
    dtype = torch.float64 if name == 'freqfusion' else torch.float32
    up, pair = build(name, dtype=dtype), features(dtype=dtype)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, guide = (t.clone(memory_format=memory_format).requires_grad_() for t in pair)
        out = copy.deepcopy(up).to(memory_format=memory_format)(x, guide)
        (out * torch.arange(12.0)).sum().backward()
        results.append([out, x.grad, *([guide.grad] if up.guided else [])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@every_name
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    up, (x, guide) = build(name, dtype=dtype).eval(), features(dtype=dtype)
    out = up(x, guide)
    exact = copy.deepcopy(up).double()(x.double(), guide.double())
    assert out.dtype == dtype
    assert exact.abs().max() > 0.1
    # The convolutions before the kernels or positions round a few times each.
    assert (out - exact).abs().max() <= 16 * torch.finfo(dtype).eps * exact.abs().max()


@every_name
def test_autocast(name):
    up, (x, guide) = build(name).eval(), features()
    x.requires_grad_()
    expected = up(x, guide)
    with torch.autocast('cpu', torch.bfloat16):
        out = up(x, guide)
    assert out.dtype == x.dtype
    bound = 16 * torch.finfo(torch.bfloat16).eps * expected.abs().max()
    assert (out - expected).abs().max() <= bound
    out.sum().backward()
    assert x.grad.dtype == x.dtype
    assert x.grad.isfinite().all()


@every_name
@pytest.mark.parametrize('training', [False, True])
def test_empty_batch(name, training):
    """As a mask head without RoIs makes it: shapes, and gradients of zero."""
    size = (9, 12) if training else (10, 12)
    up, (x, guide) = build(name).train(training), features(n=0, size=size)
    out = up(x.requires_grad_(), guide, size)
    assert out.shape == (0, CHANNELS, *size)
    out.sum().backward()
    assert x.grad.shape == x.shape
    learned = [p for p in up.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in learned)


@every_name
@pytest.mark.parametrize('reentrant', [False, True])
def test_activation_checkpointing_changes_no_gradient(name, reentrant):
    up, (x, guide) = build(name).eval(), features()
    leaves = [x.requires_grad_(), *(p for p in up.parameters() if p.requires_grad)]
    wanted = torch.autograd.grad(up(x, guide).square().sum(), leaves)
    checkpoint(up, x, guide, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close([leaf.grad for leaf in leaves], list(wanted), rtol=1e-5, atol=1e-5)


@every_name
@pytest.mark.parametrize('size', [(2, 2), (1, 2), (1, 1)])
def test_one_pixel(name, size):
    up, (x, guide) = build(name).eval(), features(height=1, width=1, size=size)
    out = up(x, guide, size)
    assert out.shape == (2, CHANNELS, *size)
    assert out.isfinite().all()


@every_name
def test_refuses_what_is_no_feature(name):
    up, (x, guide) = build(name), features()
    with pytest.raises(ValueError, match=r'x must be of shape \(N, C, H, W\)'):
        up(x[0], guide)
    with pytest.raises(TypeError, match=r'x must be floating point, got torch\.int64'):
        up(x.long(), guide)
    with pytest.raises(ValueError, match='x must have at least one pixel'):
        up(x[..., :0], guide)


@every_name
def test_unknown_keys_are_refused_with_the_accepted_ones(name):
    with pytest.raises(TypeError, match=r"\['nonsense'\].*it takes .*'in_channels'"):
        build_upsampler(dict(type=name, nonsense=1), CHANNELS)


@every_name
def test_copies_and_pickles(name):
    up, (x, guide) = build(name).eval(), features()
    expected = up(x, guide)
    for twin in (copy.deepcopy(up), pickle.loads(pickle.dumps(up))):
        assert torch.equal(twin(x, guide), expected)


@every_name
def test_every_trainable_parameter_gets_a_gradient(name):
    up, (x, guide) = build(name), features()
    (up(x.requires_grad_(), guide) * torch.arange(12.0)).sum().backward()
    without = [
        key for key, p in up.named_parameters() if p.requires_grad and not p.grad.count_nonzero()
    ]
    assert not without


@every_name
def test_compiles_without_a_break(name):
    torch.compiler.reset()
    up, (x, guide) = build(name).eval(), features(n=1, height=3, width=4, size=(5, 8))
    compiled = torch.compile(up, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x, guide, (5, 8)), up(x, guide, (5, 8)))


@every_name
def test_initialisation_survives_the_host(name):
    mmengine = pytest.importorskip('mmengine.model')
    layers = ['Conv2d', 'GroupNorm', '_BatchNorm']

    class Host(mmengine.BaseModule):
        def __init__(self):
            super().__init__(init_cfg=dict(type='Constant', layer=layers, val=7.0, bias=7.0))
            self.own = torch.nn.Conv2d(1, 1, 1)
            self.upsamplers = mmengine.ModuleList([build_upsampler(name, CHANNELS)])

    host = Host()
    host.init_weights()
    assert (host.own.weight == 7).all()
    assert not any((parameter == 7).any() for parameter in host.upsamplers.parameters())
    fresh = build_upsampler(name, CHANNELS).state_dict()
    for key, value in host.upsamplers[0].state_dict().items():
        value, expected = value.float(), fresh[key].float()
        # Two draws of one distribution: constants agree, the spread of many values nearly so.
        assert (value.numel() < 2 or value.std() == 0) == (
            expected.numel() < 2 or expected.std() == 0
        ), key
        if value.numel() >= 512:
            torch.testing.assert_close(value.std(), expected.std(), rtol=0.25, atol=0)


@pytest.mark.parametrize(
    'name', ['bilinear', 'deconv', 'pixel_shuffle', 'indexnet', 'dysample', 'dysample_s_plus']
)
def test_export_leaves_batch_height_and_width_free(name):
    up = build(name).eval()
    batch = torch.export.Dim('batch')
    height, width = (torch.export.Dim(side, min=2) for side in ('height', 'width'))
    sizes = ({0: batch, 2: height, 3: width}, {0: batch, 2: 2 * height, 3: 2 * width})
    count = 2 if up.guided else 1
    program = torch.export.export(up, features()[:count], dynamic_shapes=sizes[:count])
    other = features(n=3, height=4, width=7)[:count]
    torch.testing.assert_close(program.module()(*other), up(*other), atol=1e-5, rtol=1e-5)
