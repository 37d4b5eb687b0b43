"""Faults in the middle of a run: each stops it, and names the file, the process or the loss."""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from attack import Attack
from PIL import Image

pytest.importorskip('mmengine')

from mmengine.fileio import get
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub

from mmdysample.engine.errors import (
    DivergedError,
    MissingDataError,
    UnreadableImageError,
    UnwritableFileError,
)
from mmdysample.engine.faults import faults_explained
from mmdysample.engine.file_backend import WholeFileBackend, use_whole_files
from mmdysample.engine.hooks import FiniteLossHook, guard_runner

NO_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')


def encoded(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


JPEG, PNG = encoded('jpeg'), encoded('png')


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('half.jpg', JPEG[: len(JPEG) // 2]),
        ('end.jpeg', JPEG[:-2]),
        ('half.png', PNG[: len(PNG) // 2]),
        ('text.png', b'<html>404 not found</html>'),
        ('text.JPG', b'version https://git-lfs.github.com/spec/v1'),
        ('empty.png', b''),
    ],
)
def test_no_whole_image_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    use_whole_files()
    with pytest.raises(UnreadableImageError) as caught:
        get(str(path))
    assert str(caught.value).startswith(f'{path} cannot be read ({len(content)} bytes): ')


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('whole.jpg', JPEG),
        ('progressive.jpg', encoded('jpeg', progressive=True)),
        ('appended.jpg', JPEG + bytes(1000)),
        ('whole.png', PNG),
        ('really_webp.jpg', encoded('webp')),
        ('really_png.jpg', PNG),
        ('no_image.json', b'{}'),
        ('empty.txt', b''),
    ],
)
def test_what_can_be_read_is_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert WholeFileBackend().get(path) == content


@pytest.fixture
def data(configs, tiny_data, tmp_path):
    """A copy of the data to damage, and config files on it."""
    root = tmp_path / 'data'
    shutil.copytree(tiny_data, root)
    for scope, config in configs.items():
        text = config.read_text()
        assert str(tiny_data) in text
        (tmp_path / f'{scope}.py').write_text(text.replace(str(tiny_data), str(root)))
    return root


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_text('not an image')


def scramble(path: Path) -> None:
    """Break an image in its middle, so that its end looks well."""
    content = bytearray(path.read_bytes())
    content[60 : len(content) - 80] = bytes(len(content) - 140)
    path.write_bytes(content)


FAULTS = [
    ('mmdet', 'images/2.png', cut, 0, 'cannot be read'),
    ('mmdet', 'images/2.png', overwrite, 1, 'cannot be read'),
    ('mmdet', 'images/2.png', Path.unlink, 1, 'does not exist'),
    ('mmdet', 'images/2.png', scramble, 1, 'cannot be decoded'),
    ('mmseg', 'images/2.png', cut, 1, 'cannot be read'),
    ('mmseg', 'masks/2.png', cut, 0, 'cannot be read'),
    ('mmseg', 'masks/2.png', Path.unlink, 1, 'does not exist'),
]


@pytest.mark.parametrize(('scope', 'name', 'damage', 'workers', 'said'), FAULTS)
def test_a_bad_file_stops_training_at_its_name(
    tool, data, tmp_path, capsys, scope, name, damage, workers, said
):
    damage(data / name)
    status = tool(
        *('train', tmp_path / f'{scope}.py', '--work-dir', tmp_path / 'run'),
        options=(
            *NO_VALIDATION,
            f'train_dataloader.num_workers={workers}',
            'train_dataloader.sampler.shuffle=False',
        ),
    )
    assert status == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    assert line.startswith(f'error: {data / name} {said}')
    # The third image is in the second batch; a worker reads one batch ahead.
    assert '(training iterations done: 1)' in line
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('command', ['train', 'test'])
def test_a_bad_file_stops_an_evaluation_at_its_name(tool, trained, data, tmp_path, capsys, command):
    """In the validation of a training, the training has come to its end."""
    weights = trained['mmseg'] / 'epoch_3.pth'
    shutil.copytree(data, tmp_path / 'val')
    cut(tmp_path / 'val/images/3.png')
    split = 'val' if command == 'train' else 'test'
    status = tool(
        *(command, tmp_path / 'mmseg.py', *([weights] if command == 'test' else [])),
        *('--work-dir', tmp_path / 'run'),
        options=(f'{split}_dataloader.dataset.data_root={tmp_path / "val"}',),
    )
    assert status == 2
    message = capsys.readouterr().err
    assert f'error: {tmp_path / "val/images/3.png"} cannot be read' in message
    assert ('(training iterations done: 2)' in message) == (command == 'train')


# torch looks for workers that exit every five seconds, and hears of killed ones at once.
@pytest.mark.parametrize('how', ['killed', pytest.param('exited', marks=pytest.mark.slow)])
def test_a_dead_worker_is_named(tool, data, tmp_path, capsys, how):
    from mmcv.transforms import BaseTransform
    from mmengine.registry import TRANSFORMS

    parent = os.getpid()

    @TRANSFORMS.register_module(force=True)
    class DieInWorker(BaseTransform):
        def transform(self, results):
            assert os.getpid() != parent
            if how == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)

    config = tmp_path / 'mmseg.py'
    config.write_text(
        config.read_text().replace(
            "dict(type='PackSegInputs')", "dict(type='DieInWorker'), dict(type='PackSegInputs')"
        )
    )
    status = tool(
        *('train', config, '--work-dir', tmp_path / 'run'),
        options=(*NO_VALIDATION, 'train_dataloader.num_workers=1'),
    )
    assert status == 2
    message = capsys.readouterr().err
    assert 'error: DataLoader worker (pid' in message
    assert '(training iterations done: 0)' in message
    assert 'num_workers' in message


def test_a_diverging_training_stops_at_once(tool, configs, tmp_path, capsys):
    status = tool(
        *('train', configs['mmseg'], '--work-dir', tmp_path),
        options=(
            *NO_VALIDATION,
            'optim_wrapper.optimizer._delete_=True',
            'optim_wrapper.optimizer.type=SGD',
            'optim_wrapper.optimizer.lr=1e38',
        ),
    )
    assert status == 2
    assert 'error: not finite in iteration 2: decode.loss_ce = nan.' in capsys.readouterr().err
    assert not list(tmp_path.glob('*.pth')), 'no checkpoint holds its effect'


class FakeRunner:
    """What the hooks need of a runner."""

    def __init__(self) -> None:
        self.message_hub = MessageHub(f'faults{id(self)}')
        self.iter = 6
        self.hooks = []
        self.work_dir = 'work_dirs/run'

    def after_train_iter(self, **outputs) -> None:
        for hook in (RuntimeInfoHook(), FiniteLossHook()):
            hook.after_train_iter(self, 0, None, outputs)


@pytest.mark.parametrize(
    ('outputs', 'said'),
    [
        (dict(loss=math.nan, loss_cls=math.nan, loss_bbox=1.0), 'loss_cls = nan.'),
        (
            dict(loss=math.nan, rpn_loss_cls=math.inf, loss_bbox=-math.inf, acc=1.0),
            'rpn_loss_cls = inf, loss_bbox = -inf.',
        ),
        # Each term is finite, their sum isn't.
        (dict(loss=math.inf, loss_cls=3e38, loss_bbox=3e38), 'loss = inf.'),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_terms_that_are_not_finite_are_named(outputs, said, dtype):
    runner = FakeRunner()
    with pytest.raises(DivergedError) as caught:
        runner.after_train_iter(**{k: torch.tensor(v, dtype=dtype) for k, v in outputs.items()})
    assert f'not finite in iteration 7: {said} No checkpoint' in str(caught.value)


def test_only_losses_need_be_finite():
    """An accuracy over no pixel at all is not a number, and harmless."""
    FakeRunner().after_train_iter(loss=torch.tensor(1.0), acc_seg=torch.tensor(math.nan))


def test_the_device_is_not_asked_again():
    """Tensors on the meta device hold nothing that could be read."""
    runner = FakeRunner()
    outputs = dict(loss=torch.empty((), device='meta'))
    for value in (1.0, math.nan):
        runner.message_hub.update_scalar('train/loss', value)
        if math.isfinite(value):
            FiniteLossHook().after_train_iter(runner, 0, None, outputs)
        else:
            with pytest.raises(DivergedError):
                FiniteLossHook().after_train_iter(runner, 0, None, outputs)


class CheckInvalidLossHook(RuntimeInfoHook):
    """Of the name that MMDetection's hook has."""


@pytest.mark.parametrize('theirs', [True, False])
def test_a_config_with_its_own_check_keeps_it(theirs):
    runner = FakeRunner()
    runner.hooks = [CheckInvalidLossHook()] if theirs else [RuntimeInfoHook()]
    runner.register_hook = runner.hooks.append
    guard_runner(runner)
    assert any(isinstance(hook, FiniteLossHook) for hook in runner.hooks) is not theirs


def test_a_full_disk_under_the_logs(tmp_path):
    runner = FakeRunner()
    runner.work_dir = str(tmp_path / 'not made')
    with pytest.raises(UnwritableFileError) as caught, faults_explained(runner, training=True):
        Path('/dev/full').write_text('a line of a log')
    message = str(caught.value)
    assert message.startswith(f'a file below {runner.work_dir} was not written: No space left')
    assert message.endswith('Make room, and go on with --resume.')


@pytest.mark.parametrize(
    'error', [RuntimeError('CUDA error'), AssertionError('shape'), PermissionError(13, 'no')]
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught, faults_explained(FakeRunner(), training=True):
        raise error
    assert caught.value is error


def test_missing_files_are_still_found_missing():
    """Code that catches FileNotFoundError goes on working."""
    with pytest.raises(FileNotFoundError) as caught:
        WholeFileBackend().get('gone.png')
    assert type(caught.value) is MissingDataError


@pytest.mark.parametrize(
    'key', ['load_from', 'model.backbone.init_cfg.checkpoint', 'model.init_cfg.checkpoint']
)
def test_code_in_weights_that_a_config_names_does_not_run(tool, configs, tmp_path, capsys, key):
    """What --resume and tools/test.py load is tested with these tools."""
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, hook=Attack(tmp_path / 'sprung')), evil)
    options = [*NO_VALIDATION, f'{key}={evil}']
    if key != 'load_from':
        options.append(key.replace('.checkpoint', '.type=Pretrained'))
    status = tool(
        *('train', configs['mmseg'], '--work-dir', tmp_path / 'run'), options=tuple(options)
    )
    assert status == 2
    assert f'checkpoint {evil} was not loaded' in capsys.readouterr().err
    assert not (tmp_path / 'sprung').exists()
