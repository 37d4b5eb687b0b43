"""1x1 convolutions that are products of matrices where that is faster."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmdysample.ops.layers import PixelConv2d, convolve_pixels, multiply_shuffled


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('batch', [0, 1, 3])
def test_equals_the_sum_over_channels_with_gradients(batch, bias, layout):
    conv = PixelConv2d(6, 4, bias=bias).double()
    x = torch.randn(batch, 6, 3, 5).double().to(memory_format=layout).requires_grad_()
    out = conv(x)
    expected = torch.einsum('oc,nchw->nohw', conv.weight[:, :, 0, 0], x)
    if bias:
        expected = expected + conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(out, expected)
    leaves, grad = [x, *conv.parameters()], torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    )


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(('batch', 'scale_factor'), [(1, 2), (3, 2), (2, 3)])
def test_results_are_shuffled_instead_of_features(batch, scale_factor, bias):
    channels = 5 * scale_factor**2
    x = torch.randn(batch, channels, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    leaves = [x, weight]
    if bias:
        leaves.append(torch.randn(2, dtype=torch.float64, requires_grad=True))
    out = multiply_shuffled(x, scale_factor, *leaves[1:])
    fine = torch.nn.functional.pixel_shuffle(x, scale_factor)
    expected = torch.einsum('oc,nchw->nohw', weight[:, :, 0, 0], fine)
    if bias:
        expected = expected + leaves[2].view(-1, 1, 1)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    )


def test_graphs_keep_the_convolution():
    """Exporters know it, and counters of operations and observers of layers look for it."""
    conv, x = PixelConv2d(6, 4), torch.randn(1, 6, 3, 5)
    program = torch.export.export(conv, (x,))
    assert 'aten.conv2d' in str(program.graph) and 'bmm' not in str(program.graph)
    assert '_convolution' in str(torch.jit.trace(conv, x).graph)
    with FlopCounterMode(display=False) as counter:
        conv(x)
    assert list(counter.get_flop_counts()['Global']) == [torch.ops.aten.convolution]


def test_autocast_decides_as_for_a_convolution():
    conv, x = PixelConv2d(6, 4), torch.randn(1, 6, 3, 5, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = conv(x)
        wanted = torch.nn.functional.conv2d(x, conv.weight, conv.bias)
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out, wanted, rtol=0, atol=0)


def test_runs_inside_the_transforms_of_torch_func():
    conv, x = PixelConv2d(6, 4), torch.randn(2, 1, 6, 3, 5)
    found = torch.func.vmap(lambda x: convolve_pixels(x, conv.weight, conv.bias))(x)
    torch.testing.assert_close(found, torch.stack([conv(one) for one in x]))
