"""Exported upsamplers against PyTorch, in ONNX Runtime at sizes that the exporter never saw."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import pytest
import torch
import torch._dynamo
from torch import Tensor

from mmdysample import build_upsampler, upsampler_names
from mmdysample.upsamplers.dysample_down import DySampleDown

pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

CHANNELS = 32
OPSET = 18


@pytest.fixture(autouse=True, scope='module')
def _no_cache_of_shapes() -> Iterator[None]:
    """With free sizes, a third of an export's time goes into a cache that is hardly hit."""
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
        yield


def features(up: torch.nn.Module, batch: int, height: int, width: int, cut: int = 0):
    """A feature and, for a guided upsampler, a guide that is ``cut`` pixels short of the double."""
    x = torch.randn(batch, CHANNELS, height, width)
    guide = torch.randn(batch, CHANNELS, 2 * height - cut, 2 * width - cut)
    return (x, guide) if up.guided else (x,)


SMALL_WINDOWS = dict(
    carafe=dict(up_kernel=3),
    freqfusion=dict(lowpass_kernel=1, compressed_channels=8, details=True),
    lda_aqu=dict(k_u=1),
    sapa_d=dict(num_point=1, groups=2),
    **{name: dict(up_kernel_size=3) for name in ('fade', 'fade_lite', 'sapa_b', 'sapa_i')},
)
"""A graph has a few nodes for each tap, and exporters are slow."""


def build(name: str) -> torch.nn.Module:
    up = build_upsampler(dict(type=name, **SMALL_WINDOWS.get(name, {})), CHANNELS).eval()
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return up


def export(up: torch.nn.Module, example: tuple[Tensor, ...], dynamo: bool, free: bool) -> bytes:
    names = ['x', 'guide'][: len(example)]
    options = dict(input_names=names, opset_version=OPSET, dynamo=dynamo)
    if free and dynamo:
        batch = torch.export.Dim('batch')
        height, width = (torch.export.Dim(side, min=2) for side in ('height', 'width'))
        sizes = ({0: batch, 2: height, 3: width}, {0: batch, 2: 2 * height, 3: 2 * width})
        options['dynamic_shapes'] = sizes[: len(example)]
    elif free:
        axes = {0: 'batch', 2: 'height', 3: 'width'}
        options['dynamic_axes'] = dict.fromkeys([*names, 'y'], axes)
        options['output_names'] = ['y']
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(up, example, file, **options)
    return file.getvalue()


def assert_graph_gives(graph: bytes, up: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
    session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])
    ports = [port.name for port in session.get_inputs()]
    got = session.run(None, {p: t.numpy() for p, t in zip(ports, inputs, strict=True)})[0]
    with torch.no_grad():
        wanted = up(*inputs)
    worst = (torch.from_numpy(got) - wanted).abs().max() / wanted.abs().max()
    assert worst <= 1e-5


@pytest.mark.parametrize('name', sorted(set(upsampler_names()) - {'interpolate'}))
@pytest.mark.parametrize('free', [False, True], ids=['fixed', 'free'])
@pytest.mark.parametrize('dynamo', [False, True], ids=['trace', 'dynamo'])
def test_every_type_runs_in_onnx_runtime(name, dynamo, free):
    up = build(name)
    graph = export(up, features(up, 2, 6, 8), dynamo, free)
    seen = [(2, 6, 8)]
    for sizes in seen + [(1, 5, 7), (3, 12, 4)] * free:
        assert_graph_gives(graph, up, features(up, *sizes))


def test_a_factor_whose_inverse_is_rounded_down_finds_its_parents():
    """``41 * (1 / 41) < 1`` in PyTorch's nearest neighbour, but not in ONNX Runtime's."""
    options = dict(type='sapa_d', num_point=1, groups=1, high_offset=False)
    up = build_upsampler(options, CHANNELS, scale_factor=41).eval()
    example = (torch.randn(1, CHANNELS, 1, 2), torch.randn(1, CHANNELS, 41, 82))
    assert_graph_gives(export(up, example, dynamo=False, free=False), up, example)


class InPyramid(torch.nn.Module):
    """An upsampler as a feature pyramid calls it: the result is cut to the size of the guide."""

    guided = True

    def __init__(self, up: torch.nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.up(x, guide=guide, size=guide.shape[-2:])


@pytest.mark.parametrize('name', ['carafe', 'fade', 'sapa_i', 'a2u', 'indexnet', 'dysample'])
def test_a_graph_traced_at_even_sizes_cuts_to_odd_ones(name):
    pyramid = InPyramid(build(name)).eval()
    graph = export(pyramid, features(pyramid, 1, 6, 8), dynamo=False, free=True)
    for cut in (0, 1):
        assert_graph_gives(graph, pyramid, features(pyramid, 2, 5, 7, cut))


@pytest.mark.parametrize('init', ['average', 'strided'])
@pytest.mark.parametrize('dynamo', [False, True], ids=['trace', 'dynamo'])
def test_a_downsampler_runs_in_onnx_runtime(dynamo, init):
    """Also at sizes that the factor does not divide, where the last window is cut."""
    down = DySampleDown(CHANNELS, groups=2, dyscope=True, init=init).eval()
    for parameter in down.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    graph = export(down, (torch.randn(2, CHANNELS, 6, 8),), dynamo, free=True)
    for size in ((2, 6, 8), (1, 5, 7), (3, 12, 5)):
        x = torch.randn(size[0], CHANNELS, *size[1:])
        assert_graph_gives(graph, down, (x,))
