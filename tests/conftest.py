"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import torch

with suppress(ImportError):  # tests of the layers alone do without
    # The first import on a machine writes a grammar to the user's cache, and a process that reads
    # it at that moment fails. Here it is done before pytest starts its workers.
    from yapf.yapflib import yapf_api

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
def _forget_what_is_current() -> Iterator[None]:
    """The next test must not find a scope that mmdet's inference APIs set, nor a run's logger.

    Its file may be closed: submitit closes all log files of the process when it is imported.
    """
    yield
    for module, manager in (('registry', 'DefaultScope'), ('logging', 'MMLogger')):
        if f'mmengine.{module}' in sys.modules:
            getattr(sys.modules[f'mmengine.{module}'], manager)._instance_dict.clear()


@pytest.fixture(autouse=True, scope='session')
def _do_what_is_slow_once() -> Iterator[None]:
    """Keep the results of two functions that MMEngine calls with the same arguments for seconds.

    For a base like ``mmdet::...`` it reads all of mmdet's 100 metafiles, every time. A training
    formats its config for the log, for two files, for the log's backends and for each checkpoint.
    """
    try:
        from mmengine.config import utils
    except ImportError:  # tests of the layers alone
        yield
        return
    format_code, formatted = yapf_api.FormatCode, {}

    def format_once(text: str, **options) -> tuple[str, bool]:
        if text not in formatted:
            formatted[text] = format_code(text, **options)
        return formatted[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        patch.setattr(yapf_api, 'FormatCode', format_once)
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
