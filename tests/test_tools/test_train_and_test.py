"""tools/train.py and tools/test.py on real, tiny MMDetection and MMSegmentation runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from attack import Attack

ROOT = Path(__file__).parents[2]
SCOPES = ['mmdet', 'mmseg']
METRICS = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
EPOCHS, ITERATIONS = 3, 6

pytestmark = pytest.mark.smoke


def load(path: Path) -> dict:
    from mmdysample.engine.checkpoint import load_from_local

    return load_from_local(str(path))


def scalars(work_dir: Path) -> list[dict]:
    """All that a training logged, run after run."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def measured(work_dir: Path) -> dict:
    """What a test wrote."""
    (file,) = work_dir.glob('*/*.json')
    return json.loads(file.read_text())


def until_epoch(work_dir: Path, epoch: int, target: Path) -> Path:
    """Copy a work dir as it was after an epoch."""
    target.mkdir()
    shutil.copy(work_dir / f'epoch_{epoch}.pth', target)
    (target / 'last_checkpoint').write_text(str(target / f'epoch_{epoch}.pth'))
    return target


@pytest.mark.parametrize('scope', SCOPES)
def test_training_keeps_checkpoints_and_scalars(trained, scope):
    final = load(trained[scope] / f'epoch_{EPOCHS}.pth')
    assert (final['meta']['epoch'], final['meta']['iter']) == (EPOCHS, ITERATIONS)
    assert METRICS[scope] in scalars(trained[scope])[-1]
    if pytest.importorskip('tensorboard'):
        assert list(trained[scope].glob('*/vis_data/events.out.tfevents.*'))


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('how', ['auto', 'path'])
def test_resuming_equals_not_stopping(tool, trained, configs, tmp_path, scope, how):
    work_dir = until_epoch(trained[scope], 1, tmp_path / 'stopped')
    resume = ['--resume'] if how == 'auto' else ['--resume', work_dir / 'epoch_1.pth']
    assert tool('train', configs[scope], '--work-dir', work_dir, *resume) == 0

    resumed, straight = (
        load(folder / f'epoch_{EPOCHS}.pth') for folder in (work_dir, trained[scope])
    )
    assert resumed['meta']['iter'] == straight['meta']['iter'] == ITERATIONS
    assert [row['step'] for row in scalars(work_dir) if 'loss' in row] == [3, 4, 5, 6]
    torch.testing.assert_close(resumed['state_dict'], straight['state_dict'])
    torch.testing.assert_close(resumed['optimizer']['state'], straight['optimizer']['state'])
    assert resumed['optimizer']['param_groups'] == straight['optimizer']['param_groups']
    assert resumed.get('param_schedulers') == straight.get('param_schedulers')
    history = 'train/loss'
    assert len(resumed['message_hub']['log_scalars'][history].data[0]) == ITERATIONS


@pytest.mark.parametrize('scope', SCOPES)
def test_testing_finds_what_training_printed(tool, trained, configs, tmp_path, scope):
    out, pictures = tmp_path / 'predictions.pkl', tmp_path / 'pictures'
    status = tool(
        *('test', configs[scope], trained[scope] / f'epoch_{EPOCHS}.pth'),
        *('--work-dir', tmp_path / 'run', '--out', out, '--show-dir', pictures),
        options=('default_hooks.visualization.interval=1',),
    )
    assert status == 0
    metric = METRICS[scope]
    last = scalars(trained[scope])[-1][metric]
    assert last > 0
    assert measured(tmp_path / 'run')[metric] == last
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 4
    assert len(list(pictures.rglob('*.png')) + list(pictures.rglob('*.jpg'))) == 4


def test_options_reach_the_runner(tool, configs, tmp_path):
    status = tool(
        *('train', configs['mmdet'], '--work-dir', tmp_path, '--seed', 7, '--auto-scale-lr'),
        options=(
            'train_cfg.max_epochs=1',
            'auto_scale_lr.base_batch_size=4',
            'model.bbox_head.feat_channels=8',
            'val_cfg=None',
            'val_dataloader=None',
            'val_evaluator=None',
        ),
    )
    assert status == 0
    checkpoint = load(tmp_path / 'epoch_1.pth')
    assert checkpoint['meta']['seed'] == 7
    assert checkpoint['state_dict']['bbox_head.retina_cls.weight'].shape[1] == 8
    # One process with batches of 2, for a rate that is meant for batches of 4.
    assert checkpoint['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.5e-3)


def test_seed_and_determinism_are_options_of_their_own(tool, configs, tmp_path, monkeypatch):
    from mmdysample.engine import train

    built = []
    monkeypatch.setattr(train, 'build_runner', lambda cfg: built.append(cfg) or sys.exit())
    for arguments in (['--seed', 5], ['--deterministic'], ['--seed', 5, '--deterministic']):
        for options in ((), ('randomness.deterministic=True', 'randomness.diff_rank_seed=True')):
            with pytest.raises(SystemExit):
                tool('train', configs['mmseg'], *arguments, options=options)
            assert built[-1].randomness == dict(
                seed=5 if '--seed' in arguments else 0,
                **(dict(deterministic=True) if options or '--deterministic' in arguments else {}),
                **(dict(diff_rank_seed=True) if options else {}),
            )


def test_resuming_nothing_starts_from_the_weights_of_the_config(tool, trained, configs, tmp_path):
    weights = trained['mmseg'] / f'epoch_{EPOCHS}.pth'
    status = tool(
        *('train', configs['mmseg'], '--work-dir', tmp_path, '--resume'),
        options=(f'load_from={weights}', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0'),
    )
    assert status == 0
    started, given = load(tmp_path / 'epoch_1.pth'), load(weights)
    assert started['meta']['iter'] == 2
    for name in (name for name in given['state_dict'] if name.endswith('.weight')):
        torch.testing.assert_close(
            started['state_dict'][name], given['state_dict'][name], rtol=0, atol=0
        )


def test_tensorboard_can_be_left_out(tool, configs, tmp_path):
    options = ('train_cfg.max_epochs=1', 'val_cfg=None', 'val_dataloader=None')
    command = ('train', configs['mmseg'], '--work-dir', tmp_path, '--no-tensorboard')
    assert tool(*command, options=(*options, 'val_evaluator=None')) == 0
    assert scalars(tmp_path)
    assert not list(tmp_path.rglob('events.out.tfevents.*'))


def test_what_a_training_runs_on_is_noted_and_each_change(tool, configs, tmp_path, monkeypatch):
    from mmdysample.engine import provenance

    def train(epochs: int) -> list[dict]:
        options = (f'train_cfg.max_epochs={epochs}', 'val_cfg=None', 'val_dataloader=None')
        command = ('train', configs['mmseg'], '--work-dir', tmp_path, '--resume')
        assert tool(*command, options=(*options, 'val_evaluator=None')) == 0
        return json.loads((tmp_path / 'provenance.json').read_text())

    (first,) = train(1)
    assert first['device'] == provenance.device_name()
    assert first['revision'] == provenance.revision(ROOT)
    assert first['environment']['PyTorch'] == torch.__version__
    assert train(2) == [first]
    monkeypatch.setattr(provenance, 'revision', lambda root: 'another')
    same, second = train(3)
    assert same == first
    assert second['revision'] == 'another'
    logs = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert f'revision from {first["revision"]} to another' in logs


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('kind', ['nothing', 'a head alone', 'other layers'])
def test_weights_of_another_model_are_refused(
    tool, trained, configs, tmp_path, capsys, scope, kind
):
    state = load(trained[scope] / f'epoch_{EPOCHS}.pth')['state_dict']
    content = {
        'nothing': dict(state_dict={}),
        'a head alone': dict(state_dict={k: v for k, v in state.items() if 'head' in k}),
        'other layers': {f'other.{key}': value for key, value in state.items()},
    }[kind]
    foreign = tmp_path / 'foreign.pth'
    torch.save(content, foreign)
    assert tool('test', configs[scope], foreign, '--work-dir', tmp_path / 'run') == 2
    message = capsys.readouterr().err
    assert f'error: checkpoint {foreign} h' in message
    part = "model's backbone, such as" if kind == 'a head alone' else 'model, such as backbone.'
    assert f'of the {part}' in message


def test_flips_at_test_time(tool, trained, configs, tmp_path):
    plain, flipped = tmp_path / 'plain.pkl', tmp_path / 'flipped.pkl'
    command = ['test', configs['mmdet'], trained['mmdet'] / f'epoch_{EPOCHS}.pth']
    command += ['--work-dir', tmp_path]
    assert tool(*command, '--out', plain) == 0
    assert tool(*command, '--out', flipped, '--tta') == 0
    scores = [
        pickle.loads(path.read_bytes())[0]['pred_instances']['scores'] for path in (plain, flipped)
    ]
    assert scores[0].shape != scores[1].shape or not torch.equal(*scores)


@pytest.mark.parametrize('command', ['test {config} {evil}', 'train {config} --resume {evil}'])
def test_code_in_a_checkpoint_does_not_run(tool, configs, tmp_path, capsys, command):
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, hook=Attack(tmp_path / 'sprung')), evil)
    arguments = command.format(config=configs['mmdet'], evil=evil).split()
    assert tool(*arguments, '--work-dir', tmp_path / 'run') == 2
    assert f'checkpoint {evil} was not loaded' in capsys.readouterr().err
    assert not (tmp_path / 'sprung').exists()


def test_a_killed_training_goes_on_where_it_was(tool, configs, tmp_path):
    """The script itself, in a process of its own that dies without notice."""
    command = [sys.executable, ROOT / 'tools/train.py', configs['mmdet'], '--work-dir', tmp_path]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    training = subprocess.Popen(
        [*map(str, command), '--cfg-options', 'train_cfg.max_epochs=500'],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        last = tmp_path / 'last_checkpoint'
        deadline = time.monotonic() + 120
        while not (last.exists() and last.read_text().endswith('_2.pth')):
            assert training.poll() is None, 'the training ended by itself'
            assert time.monotonic() < deadline, 'no second epoch within two minutes'
            time.sleep(0.02)
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()

    reached = int(last.read_text().rpartition('_')[2].removesuffix('.pth'))
    option = f'train_cfg.max_epochs={reached + 1}'
    status = tool('train', configs['mmdet'], '--work-dir', tmp_path, '--resume', options=(option,))
    assert status == 0
    final = load(tmp_path / f'epoch_{reached + 1}.pth')
    assert final['meta']['iter'] == 2 * (reached + 1)
    resumed_run = sorted(tmp_path.glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()
    steps = [row['step'] for row in map(json.loads, resumed_run) if 'loss' in row]
    assert steps == [2 * reached + 1, 2 * reached + 2]
