"""What native kernels share: threads, forks, and where compiled code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('numba')
import numpy as np

from mmdysample.ops import native
from mmdysample.upsamplers import build_upsampler


@native.kernel
def add_block_numbers(start, stop, out):
    for block in range(start, stop):
        out[block] += block + 1


@pytest.fixture(params=['of PyTorch', 'of our own'])
def threads(request, monkeypatch):
    """Set the number of threads, and set it back; with OpenMP and as if there were none."""
    if request.param == 'of our own':
        monkeypatch.setattr(native, '_openmp', lambda: None)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize('number', [1, 2, 5])
@pytest.mark.parametrize('blocks', [0, 1, 3, 1000])
def test_every_block_is_done_once(threads, number, blocks):
    threads(number)
    out = np.zeros(blocks, dtype=np.int64)
    native.run(add_block_numbers, blocks, out)
    assert (out == np.arange(1, blocks + 1)).all()


def test_as_many_threads_work_as_torch_says(threads):
    seen = set()

    def note(start, stop):
        seen.add(threading.current_thread().name)
        time.sleep(0.01)  # long enough for the others to begin

    for number in (1, 3):
        threads(number)
        seen.clear()
        native.run(note, 100)
        assert len(seen) == number
    seen.clear()
    native.run(note, 100, threads=1)
    assert seen == {threading.current_thread().name}


def test_little_work_is_left_to_one_thread(threads):
    threads(3)
    assert [native.threads_for(n * native.ALONE) for n in (0, 1, 2, 3, 9)] == [1, 1, 2, 3, 3]


def test_an_error_in_any_thread_is_raised(threads):
    def fail(start, stop):
        if stop == 100:
            raise ValueError('the last block')

    threads(3)
    with pytest.raises(ValueError, match='the last block'):
        native.run(fail, 100)


def test_a_forked_child_gets_threads_of_its_own(threads):
    threads(3)
    out = np.zeros(100, dtype=np.int64)
    native.run(add_block_numbers, 100, out)
    child = os.fork()
    if child == 0:
        native.run(add_block_numbers, 100, out)
        os._exit(0 if (out == 2 * np.arange(1, 101)).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not torch.backends.openmp.is_available(), reason='PyTorch has no OpenMP')
@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='threads are not listed')
def test_threads_of_pytorch_are_used():
    """Ours beside those would share the cores: PyTorch's go on spinning behind an operator."""
    script = (
        'import os, numpy as np, torch\n'
        'from test_native import add_block_numbers, native\n'
        'torch.set_num_threads(3)\n'
        'torch.ones(10**6).exp_()\n'
        'before = set(os.listdir("/proc/self/task"))\n'
        'native.run(add_block_numbers, 1000, np.zeros(1000, dtype=np.int64))\n'
        'print(len(before) >= 3, set(os.listdir("/proc/self/task")) == before)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},  # else NumPy's library starts threads as well
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['True', 'True']


def test_several_python_threads_call_at_once(threads):
    threads(2)
    outs = [np.zeros(1000, dtype=np.int64) for _ in range(6)]

    def many(out):
        for _ in range(50):
            native.run(add_block_numbers, 1000, out)

    callers = [threading.Thread(target=many, args=(out,)) for out in outs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for out in outs:
        assert (out == 50 * np.arange(1, 1001)).all()


def test_no_writable_folder_is_no_failure(tmp_path, monkeypatch):
    """In the home nothing can be written: a temporary folder serves."""
    locked = tmp_path / 'a_file'
    locked.write_text('')
    (tmp_path / 'temporary').mkdir()
    source = tmp_path / 'kernels.py'
    source.write_text(
        'from mmdysample.ops import native\n'
        '@native.kernel\n'
        'def double(start, stop, out):\n'
        '    for block in range(start, stop):\n'
        '        out[block] *= 2\n'
    )
    script = (
        'import numpy as np, kernels\n'
        'out = np.ones(3)\n'
        'kernels.native.run(kernels.double, 3, out)\n'
        'print(out.tolist(), sum(kernels.double.stats.cache_hits.values()))\n'
    )
    environment = os.environ | {
        'HOME': str(locked),
        'XDG_CACHE_HOME': str(locked),
        'TMPDIR': str(tmp_path / 'temporary'),
        'PYTHONPATH': f'{Path(native.__file__).parents[2]}{os.pathsep}{tmp_path}',
    }
    environment.pop('NUMBA_CACHE_DIR', None)

    def call(**changes):
        done = subprocess.run(
            [sys.executable, '-c', script],
            env=environment | changes,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert call() == '[2.0, 2.0, 2.0] 0'
    assert call() == '[2.0, 2.0, 2.0] 1'  # the second process compiles nothing
    (folder,) = (tmp_path / 'temporary').iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # others could have put code there
    assert call() == '[2.0, 2.0, 2.0] 0'


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', ['dysample', 'carafe'])
def test_a_large_result_may_be_written_to(name, layout):
    upsample = build_upsampler(dict(type=name, backend='native'), in_channels=32)
    x = torch.randn(1, 32, 128, 128).to(memory_format=layout).requires_grad_()
    out = upsample(x)
    assert out.nbytes >= native.LARGE
    assert out.data_ptr() % native.HUGE_PAGE == 0
    assert out.is_contiguous(memory_format=layout)
    (wanted,) = torch.autograd.grad(out.relu().sum(), x)
    (grad,) = torch.autograd.grad(upsample(x).relu_().sum(), x)
    torch.testing.assert_close(grad, wanted, rtol=0, atol=0)
