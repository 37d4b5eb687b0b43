"""Two processes, accumulated gradients, mixed precision and checkpointing: the same training."""

from __future__ import annotations

import json
import os
import pickle
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')

from mmdysample.engine.checkpoint import load_from_local
from mmdysample.engine.processes import run_script

ROOT = Path(__file__).parents[2]
NO_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
#: Writes the mean of all processes' losses: MMEngine logs that of the first process alone.
HOOK = """
import json
from pathlib import Path
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class MeanLoss(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().double()
        all_reduce(loss, 'mean')
        if is_main_process():
            with Path(runner.work_dir, 'losses').open('a') as file:
                file.write(f'{loss.item()!r}\\n')
"""


@pytest.fixture(scope='module')
def config(configs, tmp_path_factory) -> Path:
    """A segmentor whose loss over a batch is the mean of those over its parts.

    Normalised by group, not by batch; the cross entropy is a mean over all pixels of pictures of
    one size; updated by SGD, as Adam makes much of gradients that are rounding alone.
    """
    folder = tmp_path_factory.mktemp('scale_out')
    (folder / 'mean_loss.py').write_text(HOOK)
    text = configs['mmseg'].read_text()
    text = text.replace("norm_cfg = dict(type='BN')", "norm_cfg = dict(type='GN', num_groups=4)")
    text = text.replace("dict(type='AdamW', lr=1e-3)", "dict(type='SGD', lr=0.01)")
    assert 'GN' in text and 'SGD' in text
    text += "custom_hooks = [dict(type='MeanLoss')]\n"
    text += "custom_imports = dict(imports=['mean_loss'])\n"
    path = folder / 'segmentor.py'
    path.write_text(text)
    return path


def environment(config: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    return os.environ | dict(
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        PYTHONPATH=f'{ROOT}:{config.parent}',
        PORT=str(port),
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='',
    )


def in_two_processes(config: Path, script: str, *arguments, options=(), **popen):
    """Run a script of ``tools/``, which must end by itself."""
    command = ['bash', ROOT / 'tools' / script, config, *arguments, '--cfg-options', *options]
    return subprocess.run(
        list(map(str, command)),
        **popen,
        env=environment(config),
        capture_output=True,
        text=True,
        timeout=300,
    )


def train_in_two_processes(config: Path, work_dir: Path, *options: str, **popen):
    options = (*NO_VALIDATION, *options)
    arguments = ('dist_train.sh', 2, '--work-dir', work_dir)
    return in_two_processes(config, *arguments, options=options, **popen)


@pytest.fixture
def train(tool, config, tmp_path, monkeypatch):
    """Train in this process: ``train('name', option, ...)`` returns the work dir."""
    monkeypatch.syspath_prepend(str(config.parent))

    def run(name: str, *options: str) -> Path:
        work_dir = tmp_path / name
        command = ('train', config, '--work-dir', work_dir)
        assert tool(*command, options=(*NO_VALIDATION, *options)) == 0
        return work_dir

    return run


def losses(work_dir: Path) -> list[float]:
    return [float(line) for line in (work_dir / 'losses').read_text().splitlines()]


def weights(work_dir: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_from_local(str(work_dir / f'epoch_{epoch}.pth'))['state_dict']


def largest_difference(one: dict, two: dict) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason='compares processes on the CPU')
def test_two_processes_train_as_one_does(config, train, tmp_path):
    """With batches of 1 as one process with batches of 2, in shuffled order.

    Process r takes the samples r, r + 2, ... of one permutation, so that the batches are the same.
    In exact arithmetic all losses and weights are then equal. What differs is the order of sums in
    float32, one unit in the last place of a loss (1e-7) and of a weight (2e-8) after six updates;
    the bounds are ten and fifty times that. Updates by half of each batch differ by 5e-3. The rate
    is small, since a large one lets differences in the last place grow: 4e-3 with ten times the
    rate and momentum, the same for two processes and for accumulated gradients.
    """
    one, two = train('one'), tmp_path / 'two'
    done = train_in_two_processes(config, two, 'train_dataloader.batch_size=1')
    assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-6)
    assert len(losses(two)) == 6
    assert largest_difference(weights(one, 3), weights(two, 3)) < 1e-6
    half = train('half', 'train_dataloader.batch_size=1')
    assert largest_difference(weights(one, 1), weights(half, 1)) > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes on the CPU')
def test_a_fault_of_one_process_ends_them_all(config, tmp_path):
    """Only the first one writes, and is refused; the other waits for it in vain."""
    done = train_in_two_processes(
        *(config, tmp_path, 'train_dataloader.batch_size=1'),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1
    assert f'error: {tmp_path / "epoch_1.pth"} was not written: File too large' in done.stderr
    assert 'exitcode  : 2' in done.stderr
    assert not list(tmp_path.glob('*.pth*'))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='compares processes on the CPU')
def test_two_processes_measure_what_one_does(config, train, tool, tmp_path):
    checkpoint = train('trained') / 'epoch_3.pth'
    one, two, out = tmp_path / 'one', tmp_path / 'two', tmp_path / 'predictions.pkl'
    assert tool('test', config, checkpoint, '--work-dir', one) == 0
    done = in_two_processes(
        *(config, 'dist_test.sh', checkpoint, 2, '--work-dir', two, '--out', out),
        options=NO_VALIDATION,
    )
    assert done.returncode == 0, done.stderr
    (alone,), (together,) = (list(folder.glob('*/*.json')) for folder in (one, two))
    alone, together = (json.loads(file.read_text()) for file in (alone, together))
    for name in ('aAcc', 'mIoU', 'mAcc'):
        assert together[name] == alone[name] > 0
    assert len(pickle.loads(out.read_bytes())) == 4


ENDING = """
import atexit, tempfile, time
import torch
from mmdysample.engine.processes import run_script
torch.distributed.init_process_group(
    'gloo', init_method=f'file://{tempfile.mkdtemp()}/rendezvous', rank=0, world_size=1)
atexit.register(time.sleep, 600)  # as a group that is torn down in a deadlock
def main():
    atexit.register(print, 'its last words', end='')  # as loggers flush
    return 0
run_script(main)
"""


def test_a_process_of_a_group_ends_without_tearing_it_down(config):
    done = subprocess.run(
        [sys.executable, '-c', ENDING],
        env=environment(config),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('its last words')


@pytest.mark.parametrize(('result', 'status'), [(0, 0), (2, 2), (ValueError('why'), 1)])
@pytest.mark.parametrize('distributed', [True, False])
def test_a_process_waits_for_the_others_only_after_success(
    monkeypatch, capsys, distributed, result, status
):
    waits = []
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: distributed)
    monkeypatch.setattr('torch.distributed.barrier', lambda: waits.append(True))
    monkeypatch.setattr('logging.shutdown', lambda: None)
    monkeypatch.setattr(os, '_exit', sys.exit)

    def main() -> int:
        if isinstance(result, Exception):
            raise result
        return result

    if isinstance(result, Exception) and not distributed:
        with pytest.raises(ValueError, match='why'):
            run_script(main)
        return
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == status
    assert bool(waits) is (distributed and result == 0)
    assert ('ValueError: why' in capsys.readouterr().err) is isinstance(result, Exception)


def test_accumulated_gradients_are_those_of_the_whole_batch(train):
    whole = train('whole')
    halves = train('halves', 'train_dataloader.batch_size=1', 'optim_wrapper.accumulative_counts=2')
    pairs = losses(halves)
    means = [(a + b) / 2 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    assert means == pytest.approx(losses(whole), rel=1e-6)
    assert largest_difference(weights(whole, 3), weights(halves, 3)) < 1e-6
    single = train('single', 'train_dataloader.batch_size=1')
    assert largest_difference(weights(whole, 1), weights(single, 1)) > 1e-3


def logged_losses(work_dir: Path) -> list[float]:
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line)['loss'] for line in file.read_text().splitlines()]


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_checkpointed_activations_give_the_same_losses(tool, configs, tmp_path, monkeypatch, scope):
    calls = []
    checkpoint = torch.utils.checkpoint.checkpoint

    def counted(*args, **kwargs):
        calls.append(args[0])
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', counted)
    found = {}
    for with_cp in (False, True):
        calls.clear()
        work_dir = tmp_path / str(with_cp)
        options = (*NO_VALIDATION, 'train_cfg.max_epochs=1', f'model.backbone.with_cp={with_cp}')
        if scope == 'mmdet':
            options += ('model.neck.type=UpsampleFPN', 'model.neck.upsample_cfg.type=dysample')
        assert tool('train', configs[scope], '--work-dir', work_dir, options=options) == 0
        assert bool(calls) is with_cp
        found[with_cp] = logged_losses(work_dir)
    assert len(found[True]) == 2
    assert found[True] == pytest.approx(found[False], rel=1e-6)


def test_mixed_precision_needs_an_accelerator(tool, configs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmdysample.engine.train.get_device', lambda: 'cpu')
    assert tool('train', configs['mmseg'], '--work-dir', tmp_path, '--amp') == 2
    assert capsys.readouterr().err.startswith('error: --amp needs a GPU')


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_mixed_precision_trains(tool, configs, tmp_path, monkeypatch, scope):
    """On a GPU as users have it; elsewhere in the CPU's bfloat16, past MMEngine's refusal."""
    if not torch.cuda.is_available():
        wrapper = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
        monkeypatch.setattr(f'{wrapper}.is_cuda_available', lambda: True)
        monkeypatch.setattr('mmdysample.engine.train.get_device', lambda: 'cuda')
    found, dtypes = {}, set()
    convolve = torch.nn.functional.conv2d

    def noted(*args, **kwargs):
        result = convolve(*args, **kwargs)
        dtypes.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, 'conv2d', noted)
    for amp in ((), ('--amp',)):
        dtypes.clear()
        work_dir = tmp_path / str(len(amp))
        options = (*NO_VALIDATION, 'train_cfg.max_epochs=1')
        if scope == 'mmdet':
            options += ('model.neck.type=UpsampleFPN', 'model.neck.upsample_cfg.type=dysample')
        assert tool('train', configs[scope], '--work-dir', work_dir, *amp, options=options) == 0
        assert bool(dtypes & {torch.float16, torch.bfloat16}) is bool(amp)
        found[bool(amp)] = logged_losses(work_dir)
    # bfloat16 has three digits; a mean over all pixels or anchors loses less than one of them.
    assert found[True] == pytest.approx(found[False], rel=0.05)
