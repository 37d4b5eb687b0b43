"""Whatever interrupts the writing of a checkpoint, the one before it stays, and is found."""

from __future__ import annotations

import builtins
import errno
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmdysample.engine.checkpoint import load_from_local, require_safe_loading
from mmdysample.engine.errors import UnwritableFileError
from mmdysample.engine.file_backend import use_whole_files
from mmdysample.engine.files import remove_leftovers, write_whole
from mmdysample.engine.hooks import guard_runner

ROOT = Path(__file__).parents[2]
NO_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')


class Scalar(BaseModel):
    """One weight; its loss is the weight times the data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='loss'):
        out = self.weight * inputs.mean()
        return dict(loss_a=out, loss_b=out.square(), acc=out) if mode == 'loss' else [out]


class Rising(BaseMetric):
    """A metric that improves each time."""

    value = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.value += 1
        return dict(mIoU=self.value, acc=-self.value)


def toy_runner(work_dir: Path, guarded: bool = True, epochs: int = 4, **checkpoint) -> Runner:
    model, data = Scalar(), [dict(inputs=torch.ones(1))] * 2
    loader = torch.utils.data.DataLoader(data, batch_size=1)
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        val_evaluator=Evaluator(Rising()),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **checkpoint)),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}{time.monotonic_ns()}',
        log_level='WARNING',
    )
    require_safe_loading()
    use_whole_files()
    if guarded:
        guard_runner(runner)
    return runner


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob('*.pth')}


KEEPING = [
    dict(max_keep_ckpts=1),
    dict(max_keep_ckpts=2, save_best='mIoU', rule='greater'),
    dict(max_keep_ckpts=1, save_best=['mIoU', 'acc'], rule=['greater', 'less']),
    dict(save_best='acc', rule='greater'),
]


@pytest.mark.parametrize('keeping', KEEPING, ids=str)
def test_the_files_are_those_of_mmengine(tmp_path, keeping):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    toy_runner(ours, **keeping).train()
    toy_runner(theirs, guarded=False, **keeping).train()
    assert checkpoints(ours) == checkpoints(theirs) != set()
    notes = [(folder / 'last_checkpoint').read_text() for folder in (ours, theirs)]
    assert [Path(note).name for note in notes] == ['epoch_4.pth'] * 2
    for name in checkpoints(ours):
        a, b = (load_from_local(str(folder / name)) for folder in (ours, theirs))
        assert a.keys() == b.keys()
        torch.testing.assert_close(a['state_dict'], b['state_dict'], rtol=0, atol=0)
        for state in (a, b):
            for key in [key for key in state['message_hub']['runtime_info'] if 'ckpt' in key]:
                value = state['message_hub']['runtime_info'][key]
                state[key] = Path(value).name if isinstance(value, str) else value
        assert {k: a[k] for k in a if 'ckpt' in k} == {k: b[k] for k in b if 'ckpt' in k}


@pytest.mark.parametrize('guarded', [True, False], ids=['ours', "mmengine's"])
def test_at_every_moment_the_last_checkpoint_and_a_best_one_are_whole(
    tmp_path, monkeypatch, guarded
):
    """Looks at the folder after each change to it; MMEngine's own hook shows that it sees."""
    lost, seen = [], []

    def look(action):
        def wrapped(*args, **kwargs):
            result = action(*args, **kwargs)
            note = tmp_path / 'last_checkpoint'
            bests = sorted(tmp_path.glob('best_*.pth'))
            whole = [Path(note.read_text()), *bests] if note.exists() else bests
            lost.extend(path for path in whole if not path.exists())
            lost.extend(['best'] if seen and seen[-1] and not bests else [])
            seen.append(bests)
            for path in whole:
                assert not path.exists() or load_from_local(str(path))
            return result

        return wrapped

    for name in ('replace', 'remove', 'unlink'):
        monkeypatch.setattr(os, name, look(getattr(os, name)))
    toy_runner(tmp_path, guarded, max_keep_ckpts=1, save_best='mIoU', rule='greater').train()
    assert len(seen) > 8
    assert bool(lost) is not guarded


class Interrupted(BaseException):
    """As Ctrl-C is one."""


@pytest.mark.parametrize('step', ['fsync', 'replace'])
@pytest.mark.parametrize('error', [Interrupted(), OSError(errno.ENOSPC, 'No space left on device')])
def test_an_interrupted_write_leaves_the_old_content_alone(tmp_path, monkeypatch, step, error):
    path = tmp_path / 'epoch_1.pth'
    write_whole(path, b'old')

    def fail(*args):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises((Interrupted, UnwritableFileError)):
        write_whole(path, b'new and longer')
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'old'


def test_a_written_file_is_like_any_other(tmp_path):
    """Readable as the umask says, through a link too, in a folder made for it."""
    plain = tmp_path / 'plain'
    plain.write_bytes(b'')
    target, link = tmp_path / 'new' / 'file.pth', tmp_path / 'link.pth'
    write_whole(target, b'content')
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    link.symlink_to(target)
    write_whole(link, b'other')
    assert link.is_symlink()
    assert target.read_bytes() == b'other'


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_a_full_disk_is_named_with_its_space(tmp_path, monkeypatch):
    path, really_open = tmp_path / 'epoch_2.pth', builtins.open
    monkeypatch.setattr(
        builtins,
        'open',
        lambda name, *args: really_open('/dev/full' if '.part' in str(name) else name, *args),
    )
    with pytest.raises(UnwritableFileError) as caught:
        write_whole(path, b'x' * 2**20)
    message = str(caught.value)
    assert f'{path} was not written: No space left on device; it needs 1.0 MiB' in message
    assert re.search(r'and [\d.]+ MiB are free there', message)
    assert not path.exists()


def test_only_leftovers_of_checkpoints_are_cleared(tmp_path):
    kept = ['epoch_1.pth', 'notes.1.part', 'epoch_2.pth.part', 'last_checkpoint']
    gone = ['epoch_2.pth.123.part', 'last_checkpoint.7.part', 'best_mIoU_epoch_1.pth.9.part']
    for name in kept + gone:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / 'not there')


def test_what_another_process_is_writing_is_not_cleared(tmp_path, monkeypatch):
    """Clears the folder in the middle of a write, as a second training there does."""
    really_sync, seen = os.fsync, []

    def clear_and_sync(number):
        remove_leftovers(tmp_path)
        seen.extend(path.name for path in tmp_path.iterdir())
        really_sync(number)

    monkeypatch.setattr(os, 'fsync', clear_and_sync)
    write_whole(tmp_path / 'epoch_1.pth', b'whole')
    assert seen == [f'epoch_1.pth.{os.getpid()}.part']
    assert (tmp_path / 'epoch_1.pth').read_bytes() == b'whole'


def start(driver: str, *arguments, **popen) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', driver, *map(str, arguments)],
        env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


TRAIN = 'import sys; from mmdysample.engine.train import main; sys.exit(main(sys.argv[1:]))'
#: Stops for ever half-way through the second write to files of a name, and says so in a file.
STALLING = """
import builtins, sys, time
name, flag = sys.argv.pop(1), sys.argv.pop(1)
really_open, seen = builtins.open, []
class Half:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def fileno(self): return self.file.fileno()
    def write(self, content):
        self.file.write(content[:len(content) // 2])
        self.file.flush()
        really_open(flag, 'w').close()
        time.sleep(600)
def open(path, mode='r', *args, **kwargs):
    file = really_open(path, mode, *args, **kwargs)
    if name not in str(path) or 'w' not in mode:
        return file
    seen.append(path)
    return Half(file) if len(seen) == 2 else file
builtins.open = open
"""


@pytest.mark.parametrize('name', ['epoch_', 'last_checkpoint'])
def test_killed_in_the_middle_of_a_write(tool, configs, tmp_path, name):
    work_dir, flag = tmp_path / 'run', tmp_path / 'flag'
    options = (*NO_VALIDATION, 'default_hooks.checkpoint.max_keep_ckpts=1')
    arguments = [configs['mmseg'], '--work-dir', work_dir, '--cfg-options', *options]
    training = start(STALLING + TRAIN, name, flag, *arguments)
    try:
        deadline = time.monotonic() + 120
        while not flag.exists():
            assert training.poll() is None, training.stderr.read()
            assert time.monotonic() < deadline, 'no second checkpoint within two minutes'
            time.sleep(0.05)
    finally:
        training.send_signal(signal.SIGKILL)
        training.communicate()

    parts = [path.name.split('.')[0] for path in work_dir.glob('*.part')]
    assert parts == (['epoch_2'] if name == 'epoch_' else []), 'it was killed while it wrote'
    last = (work_dir / 'last_checkpoint').read_text()
    if name == 'epoch_':
        assert last == str(work_dir / 'epoch_1.pth')
    else:  # MMEngine writes this note itself, and not whole
        assert last in str(work_dir / 'epoch_2.pth') and not last.endswith('.pth')
    assert load_from_local(str(work_dir / 'epoch_1.pth'))['meta']['epoch'] == 1
    assert tool('train', *arguments[:3], '--resume', options=options) == 0
    # Where the second one had been written, the resumed training knows nothing of the first.
    orphan = set() if name == 'epoch_' else {'epoch_1.pth'}
    assert checkpoints(work_dir) == {'epoch_3.pth'} | orphan
    assert not list(work_dir.glob('*.part'))
    resumed = load_from_local(str(work_dir / 'epoch_3.pth'))
    assert resumed['meta']['iter'] == 6
    assert len(resumed['message_hub']['log_scalars']['train/loss'].data[0]) == 6


def test_no_room_for_a_checkpoint(tool, configs, tmp_path):
    """The kernel refuses the write: the limit on file sizes stands in for a full disk."""
    arguments = ['train', configs['mmseg'], '--work-dir', tmp_path]
    assert tool(*arguments, options=(*NO_VALIDATION, 'train_cfg.max_epochs=1')) == 0
    size = (tmp_path / 'epoch_1.pth').stat().st_size
    half = (size // 2, size // 2)
    training = start(
        TRAIN,
        *(*arguments[1:], '--resume', '--cfg-options', *NO_VALIDATION),
        *('default_hooks.checkpoint.max_keep_ckpts=1',),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, half),
    )
    _, message = training.communicate(timeout=120)
    assert training.returncode == 2, message
    (line,) = [line for line in message.splitlines() if line.startswith('error: ')]
    assert f'{tmp_path / "epoch_2.pth"} was not written: File too large' in line
    assert re.search(r'it needs [\d.]+ MiB, and [\d.]+ MiB are free there', line)
    assert 'Traceback' not in message
    assert checkpoints(tmp_path) == {'epoch_1.pth'}
    assert not list(tmp_path.glob('*.part'))
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'epoch_1.pth'
    assert load_from_local(str(tmp_path / 'epoch_1.pth'))['meta']['epoch'] == 1


@pytest.fixture
def two_epochs(tool, configs, tmp_path):
    """A work dir with two checkpoints, and the command that goes on from there."""
    command = ('train', configs['mmseg'], '--work-dir', tmp_path)
    assert tool(*command, options=(*NO_VALIDATION, 'train_cfg.max_epochs=2')) == 0
    return SimpleNamespace(folder=tmp_path, command=command)


def test_resuming_from_a_bad_last_checkpoint_names_the_one_before(tool, two_epochs, capsys):
    folder = two_epochs.folder
    older, newer = folder / 'epoch_1.pth', folder / 'epoch_2.pth'
    advice = f'The newest one in {folder} that can be read: --resume {older}'
    # An unfinished download or a copy of weights alone is nothing to go on from.
    torch.save(dict(state_dict={}), folder / 'weights.pth')

    def refused(*resume) -> str:
        capsys.readouterr()
        assert tool(*two_epochs.command, *resume, options=NO_VALIDATION) == 2
        return capsys.readouterr().err

    newer.write_bytes(newer.read_bytes()[:-1000])
    message = refused('--resume')
    assert f'checkpoint {newer} was not loaded, because it is damaged' in message
    assert advice in message
    assert advice not in refused('--resume', newer)
    newer.unlink()
    older.unlink()
    message = refused('--resume')
    assert f'last_checkpoint names {newer}, which does not exist.' in message
    assert 'start without --resume' in message


@pytest.mark.parametrize('note', ['', '/gone/epoch_9.pth'])
def test_resuming_without_the_last_checkpoint_goes_on_from_the_one_before(tool, two_epochs, note):
    (two_epochs.folder / 'epoch_2.pth').unlink()
    (two_epochs.folder / 'last_checkpoint').write_text(note)
    assert tool(*two_epochs.command, '--resume', options=NO_VALIDATION) == 0
    resumed = load_from_local(str(two_epochs.folder / 'epoch_3.pth'))
    assert len(resumed['message_hub']['log_scalars']['train/loss'].data[0]) == 6


def test_resuming_elsewhere(tool, configs, tmp_path, monkeypatch):
    """From another folder, where checkpoints lie at a relative path; and after a move."""
    command = ['train', configs['mmseg'], '--resume', '--work-dir']
    options = (*NO_VALIDATION, 'default_hooks.checkpoint.out_dir=ckpts')
    monkeypatch.chdir(tmp_path)
    assert tool(*command, tmp_path / 'run', options=(*options, 'train_cfg.max_epochs=1')) == 0
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert tool(*command, tmp_path / 'run', options=(*options, 'train_cfg.max_epochs=2')) == 0
    iterations = load_from_local('ckpts/run/epoch_2.pth')['message_hub']['log_scalars']
    assert len(iterations['train/loss'].data[0]) == 4

    assert (
        tool(*command, tmp_path / 'plain', options=(*NO_VALIDATION, 'train_cfg.max_epochs=1')) == 0
    )
    (tmp_path / 'plain').rename(tmp_path / 'moved')
    assert (
        tool(*command, tmp_path / 'moved', options=(*NO_VALIDATION, 'train_cfg.max_epochs=2')) == 0
    )
    iterations = load_from_local(str(tmp_path / 'moved/epoch_2.pth'))['message_hub']['log_scalars']
    assert len(iterations['train/loss'].data[0]) == 4
