"""Which implementation runs, who decides, and what is said about it."""

from __future__ import annotations

import logging

import pytest
import torch

from mmdysample import DySample, build_upsampler
from mmdysample.ops import backend as backends
from mmdysample.ops.backend import (
    can_run_native,
    can_run_triton,
    check_backend,
    choose_backend,
)

CPU = torch.zeros(1)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)


@pytest.mark.parametrize('preset', ['torch', 'native', 'triton'])
def test_the_environment_fills_in_auto_and_nothing_else(monkeypatch, preset):
    assert check_backend('auto') == 'auto'
    monkeypatch.setenv(backends.VARIABLE, preset)
    assert check_backend('auto') == preset
    assert check_backend('torch') == 'torch'


def test_unknown_backends_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"backend .*'native', 'triton'.* got 'cuda'"):
        DySample(16, backend='cuda')
    monkeypatch.setenv(backends.VARIABLE, 'cuda')
    with pytest.raises(ValueError, match=r"MMDYSAMPLE_BACKEND .* got 'cuda'"):
        DySample(16)


@pytest.mark.skipif(not backends.HAS_NUMBA, reason='numba is not installed')
def test_the_cpu_takes_native_code_where_it_can(monkeypatch, caplog):
    monkeypatch.setattr(backends, 'INTERPRETED', True)
    assert choose_backend('auto', CPU) == 'native'
    assert choose_backend('auto', CPU.bfloat16()) == 'torch'
    monkeypatch.setattr(backends, 'HAS_NUMBA', False)
    assert choose_backend('auto', CPU) == 'torch'
    assert not caplog.records  # nothing that the user of a CPU could mend


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


@pytest.mark.parametrize(
    ('tensors', 'options', 'reason'),
    [
        ((CPU,), {'HAS_NUMBA': False}, 'numba is not installed'),
        ((CPU, None, CPU.half()), {}, r'torch\.float16'),
        ((torch.zeros(1, device='meta'),), {}, "'meta'"),
    ],
)
def test_native_code_says_why_it_cannot_run(monkeypatch, tensors, options, reason):
    for name, value in {'HAS_NUMBA': True, **options}.items():
        monkeypatch.setattr(backends, name, value)
    assert not can_run_native(*tensors)
    with pytest.raises(RuntimeError, match=f"backend 'native' cannot run here: .*{reason}"):
        choose_backend('native', *tensors)


def test_a_numba_that_cannot_be_imported_is_named_once(monkeypatch, caplog):
    def broken(name):
        raise ImportError('Numba needs NumPy 2.3 or less')

    monkeypatch.setattr(backends, 'HAS_NUMBA', True)
    monkeypatch.setattr(backends, '_reported', set())
    monkeypatch.setattr(backends.importlib, 'import_module', broken)
    backends._import_numba.cache_clear()
    try:
        assert [choose_backend('auto', CPU) for _ in range(3)] == ['torch'] * 3
        with pytest.raises(RuntimeError, match=r'cannot be imported: Numba needs NumPy'):
            choose_backend('native', CPU)
    finally:
        backends._import_numba.cache_clear()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        (lambda value: value + 0.1, 'AssertionError'),
        (lambda value: 1 / 0, 'ZeroDivisionError: division by zero'),
    ],
)
def test_kernels_that_fail_their_trial_are_not_taken(monkeypatch, caplog, fault, reason):
    """A GPU is played by the meta device; the trial computes on the CPU."""
    monkeypatch.setattr(backends, '_reported', set())
    monkeypatch.setattr(backends, '_triton_obstacle', lambda tensors: None)
    calls = []

    def trial(backend, device, dtype):
        calls.append((backend, device.type, dtype))
        value = torch.arange(4, dtype=dtype)
        return [fault(value) if backend == 'triton' and dtype == torch.float16 else value]

    half, single = (torch.zeros(1, device='meta', dtype=d) for d in (torch.half, torch.float))
    for _ in range(2):
        assert choose_backend('auto', single, trial=trial) == 'triton'
        assert choose_backend('auto', half, trial=trial) == 'torch'
    assert choose_backend('triton', half, trial=trial) == 'triton'  # who asks gets it
    assert len(calls) == 4  # one per backend and dtype
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_the_automatic_choice_falls_back_with_one_line(monkeypatch, caplog):
    monkeypatch.setattr(backends, '_reported', set())
    meta = torch.zeros(1, device='meta')  # stands in for a GPU that Triton does not know
    with caplog.at_level(logging.WARNING):
        assert [choose_backend('auto', meta) for _ in range(3)] == ['torch'] * 3
    assert len(caplog.records) == 1
    assert 'PyTorch operators' in caplog.text


@pytest.mark.skipif(not backends.HAS_TRITON, reason='triton is not installed')
@pytest.mark.parametrize('chosen_by', ['argument', 'environment'])
@pytest.mark.parametrize(
    'name', ['dysample_plus', 'dysample_s_plus', 'carafe', 'a2u', 'fade', 'sapa_b']
)
def test_modules_take_either_backend_and_agree(device, name, chosen_by, monkeypatch):
    options = {'backend': 'triton'} if chosen_by == 'argument' else {}
    ours = build_upsampler(dict(type=name, **options), 32).to(device)
    theirs = build_upsampler(dict(type=name, backend='torch'), 32).to(device)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.load_state_dict(ours.state_dict())
    x, guide = (torch.randn(1, 32, *size, device=device) for size in ((3, 2), (6, 4)))
    if chosen_by == 'environment':
        monkeypatch.setenv(backends.VARIABLE, 'triton')
    torch.testing.assert_close(ours(x, guide), theirs(x, guide), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(backends, 'HAS_TRITON', False)  # what has not asked for it never notices
    theirs(x, guide)
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run here"):
        ours(x, guide)


@pytest.mark.parametrize('name', ['carafe', 'a2u', 'fade', 'sapa_b'])
def test_every_module_refuses_unknown_backends(name):
    with pytest.raises(ValueError, match=r"backend .*'native', 'triton'.* got 'cuda'"):
        build_upsampler(dict(type=name, backend='cuda'), 32)
