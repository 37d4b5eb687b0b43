"""What the operators' tests share: the device, the kernels' tiles, hypothesis profiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    'ops',
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile('ops')


@pytest.fixture(scope='session')
def device() -> torch.device:
    """The GPU where there is one; else the CPU, where kernels run in Triton's interpreter."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    """Compilers keep what they compiled, and count it, per process: each test starts afresh."""
    torch._dynamo.reset()


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fill what ``torch.empty`` and its kin give with NaN: unwritten results then show."""
    for name in ('empty', 'empty_like'):
        original = getattr(torch, name)

        def poisoned(*args, _original=original, **kwargs):
            tensor = _original(*args, **kwargs)
            return tensor.fill_(float('nan')) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(torch, name, poisoned)
