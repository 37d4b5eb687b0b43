"""Which implementation runs, who decides, and what is said about it."""

from __future__ import annotations

import logging

import pytest
import torch

from mmdysample import DySample
from mmdysample.ops import backend as backends
from mmdysample.ops.backend import can_run_triton, check_backend, choose_backend

CPU = torch.zeros(1)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)


@pytest.mark.parametrize('preset', ['torch', 'triton'])
def test_the_environment_fills_in_auto_and_nothing_else(monkeypatch, preset):
    assert check_backend('auto') == 'auto'
    monkeypatch.setenv(backends.VARIABLE, preset)
    assert check_backend('auto') == preset
    assert check_backend('torch') == 'torch'


def test_unknown_backends_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"backend .*'auto', 'torch', 'triton'.* got 'cuda'"):
        DySample(16, backend='cuda')
    monkeypatch.setenv(backends.VARIABLE, 'cuda')
    with pytest.raises(ValueError, match=r"MMDYSAMPLE_BACKEND .* got 'cuda'"):
        DySample(16)


def test_the_cpu_is_at_home_in_pytorch(monkeypatch, caplog):
    monkeypatch.setattr(backends, 'INTERPRETED', True)
    assert choose_backend('auto', CPU) == 'torch'
    assert not caplog.records


@pytest.mark.parametrize(
    ('tensors', 'settings', 'reason'),
    [
        ((CPU,), {'HAS_TRITON': False}, 'not installed'),
        ((CPU,), {'INTERPRETED': False}, 'TRITON_INTERPRET'),
        ((CPU, None, CPU.double()), {'INTERPRETED': True}, r'torch\.float64'),
        ((torch.zeros(1, device='meta'),), {}, "'meta'"),
    ],
)
def test_an_explicit_wish_that_cannot_be_met_raises(monkeypatch, tensors, settings, reason):
    for name, value in {'HAS_TRITON': True, **settings}.items():
        monkeypatch.setattr(backends, name, value)
    assert not can_run_triton(*tensors)
    with pytest.raises(RuntimeError, match=reason):
        can_run_triton(*tensors, raise_error=True)
    with pytest.raises(RuntimeError, match=reason):
        choose_backend('triton', *tensors)


def test_the_automatic_choice_falls_back_with_one_line(monkeypatch, caplog):
    monkeypatch.setattr(backends, '_reported', set())
    meta = torch.zeros(1, device='meta')  # stands in for a GPU that Triton does not know
    with caplog.at_level(logging.WARNING):
        assert [choose_backend('auto', meta) for _ in range(3)] == ['torch'] * 3
    assert len(caplog.records) == 1
    assert 'PyTorch operators' in caplog.text


@pytest.mark.skipif(not backends.HAS_TRITON, reason='triton is not installed')
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_modules_take_either_backend_and_agree(device, style):
    ours = DySample(8, groups=2, style=style, dyscope=True, backend='triton').to(device)
    torch.nn.init.normal_(ours.offset.weight)
    theirs = DySample(8, groups=2, style=style, dyscope=True, backend='torch').to(device)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 8, 4, 3, device=device)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
