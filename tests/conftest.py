"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')  # read where kernels are defined, so set first


def _optional_folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f'{variable} does not name a folder')
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f'{variable} names {folder}, which is not a folder')
    return path


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Folder of the published implementations' reference vectors (``MMDYSAMPLE_GOLDEN``)."""
    return _optional_folder('MMDYSAMPLE_GOLDEN')


@pytest.fixture(scope='session')
def real_data_dir() -> Path:
    """Folder of small real datasets (``MMDYSAMPLE_DATA``)."""
    return _optional_folder('MMDYSAMPLE_DATA')


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _forget_default_scope() -> Iterator[None]:
    """mmdet's inference APIs set a global scope; the next test must not find it."""
    yield
    if 'mmengine.registry' in sys.modules:
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True, scope='session')
def _read_each_index_once() -> Iterator[None]:
    """For a base like ``mmdet::...`` mmengine reads all of mmdet's 100 metafiles, every time."""
    try:
        from mmengine.config import utils
    except ImportError:  # tests of the layers alone
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        yield


@pytest.fixture
def reports() -> list[tuple]:
    """What the upsamplers of the class ``Reports`` were given, call by call."""
    from networks import Reports

    Reports.calls = []
    return Reports.calls


@pytest.fixture
def mmseg_scope() -> Iterator[None]:
    """Build by the names of mmseg."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what the tests recorded as ``parity``: a case, its errors, the worst gradient."""
    reports = terminalreporter.getreports('passed') + terminalreporter.getreports('failed')
    properties = [item for report in reports for item in report.user_properties]
    rows = [value for name, value in properties if name == 'parity']
    if not rows:
        return
    terminalreporter.section('parity with the published implementations')
    terminalreporter.write_line(f'{"case":<34} {"forward":>9} {"backward":>9}  worst gradient')
    for case, forward, backward, worst in sorted(rows):
        terminalreporter.write_line(f'{case:<34} {forward:9.1e} {backward:9.1e}  {worst}')
