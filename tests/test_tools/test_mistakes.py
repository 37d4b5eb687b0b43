"""Mistakes in commands, configs, folders and options: one sentence and exit status 2."""

from __future__ import annotations

import errno
import os

import pytest

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('syntax.py', b'model = dict(', 'SyntaxError'),
        ('name.py', b'x = 1\nmodel = dict(type=y)', "NameError: name 'y' is not defined"),
        ('binary.py', bytes(range(256)), 'cannot be read'),
        ('empty.py', b'', 'has no model'),
        ('config.txt', b'model = dict()', 'Only py/yml/yaml/json'),
        ('base.py', b"_base_ = 'gone.py'", 'gone.py'),
        ('package.py', b"_base_ = 'mmdet::gone/gone.py'", 'gone.py'),
        ('imports.py', b"custom_imports = dict(imports=['gone_module'])", 'gone_module'),
    ],
)
def test_a_config_that_cannot_be_read_is_one_message(tool, tmp_path, capsys, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    assert tool('train', path, '--work-dir', tmp_path / 'run') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: config {path} ')
    assert said in line
    if name == 'name.py':
        assert 'line 2' in line
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['upsample_cfg.type=dysampel'], "unknown upsampler type 'dysampel'; known types: a2u"),
        (['upsample_cfg.type=dysample', 'upsample_cfg.groups=7'], 'groups'),
        (['upsample_cfg.type=dysample', 'upsample_cfg.group=4'], 'group'),
        (['upsample_cfg=5'], 'upsample_cfg must be a type name or a dict, got int'),
        (['type=UpsampelFPN'], 'UpsampelFPN'),
    ],
)
def test_a_model_that_cannot_be_built_is_one_message(
    tool, configs, tmp_path, capsys, options, said
):
    options = ('model.neck.type=UpsampleFPN', *(f'model.neck.{option}' for option in options))
    assert tool('train', configs['mmdet'], '--work-dir', tmp_path, options=options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if 'Error' in line]
    assert len(lines) == 1
    assert lines[0].startswith('error: the config cannot be built: ')
    assert said in lines[0]


@pytest.mark.parametrize('option', ['model.neck.type.x.y=1', 'train_cfg.max_epochs.x=1'])
def test_options_that_do_not_fit_the_config_are_one_message(
    tool, configs, tmp_path, capsys, option
):
    assert tool('train', configs['mmdet'], '--work-dir', tmp_path, options=(option,)) == 2
    assert 'error: --cfg-options cannot be merged into the config' in capsys.readouterr().err


def test_options_without_a_value(tool, configs, capsys):
    with pytest.raises(SystemExit) as caught:
        tool('train', configs['mmdet'], options=('foo',))
    assert caught.value.code == 2
    assert 'argument --cfg-options: ' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('place', 'said'),
    [
        ('file', 'File exists'),
        ('file/below', 'Not a directory'),
        ('/proc/run', 'No such file'),
        ('/sys/run', ''),
    ],
)
@pytest.mark.parametrize('command', ['train', 'test --out', 'test --show-dir'])
def test_a_folder_that_cannot_be_written_to(
    tool, trained, configs, tmp_path, capsys, command, place, said
):
    (tmp_path / 'file').touch()
    folder = tmp_path / place
    command, *option = command.split()
    arguments = [command, configs['mmseg']]
    if command == 'train':
        arguments += ['--work-dir', folder]
    else:
        arguments += [trained['mmseg'] / 'epoch_3.pth', '--work-dir', tmp_path / 'run', *option]
        arguments.append(folder / 'out.pkl' if option == ['--out'] else folder)
    assert tool(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: nothing can be written to the folder {folder}: {said}')
    assert not (tmp_path / 'run').exists()


def test_a_full_disk_at_the_start(tool, configs, tmp_path, capsys, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    assert tool('train', configs['mmseg'], '--work-dir', tmp_path / 'run') == 2
    assert 'No space left on device' in capsys.readouterr().err
    assert not list((tmp_path / 'run').iterdir())


@pytest.mark.parametrize(
    ('command', 'options', 'said'),
    [
        ('train gone.py', (), 'config gone.py does not exist'),
        ('train {mmdet} --resume gone.pth', (), 'checkpoint gone.pth does not exist'),
        ('test {mmdet} gone.pth', (), 'checkpoint gone.pth does not exist'),
        ('train {mmdet} --auto-scale-lr', (), 'base_batch_size'),
        ('train {mmdet} --amp', ('optim_wrapper.type=OptimWrapperDict',), 'OptimWrapperDict'),
        ('test {mmseg} {checkpoint} --tta', (), 'tta_model and tta_pipeline'),
        (
            'train {mmdet}',
            ('train_dataloader.dataset.dataset.ann_file=gone.json',),
            'train_dataloader.dataset.dataset.ann_file = {data}/gone.json',
        ),
        (
            'train {mmseg}',
            ('val_dataloader.dataset.data_prefix.seg_map_path=gone',),
            'val_dataloader.dataset.data_prefix.seg_map_path = {data}/gone',
        ),
        (
            'test {mmdet} {checkpoint}',
            ('test_evaluator.ann_file=gone.json',),
            'test_evaluator.ann_file = gone.json',
        ),
    ],
)
def test_mistakes_are_one_message(
    tool, trained, configs, tiny_data, tmp_path, capsys, command, options, said
):
    places = dict(configs, data=tiny_data, checkpoint=trained['mmdet'] / 'epoch_1.pth')
    status = tool(*command.format(**places).split(), '--work-dir', tmp_path, options=options)
    assert status == 2
    message = capsys.readouterr().err
    assert message.startswith('error: ')
    assert said.format(**places) in message
    assert not list(tmp_path.iterdir())


def test_predictions_need_a_pickles_name(capsys):
    from mmdysample.engine.test import parse_args

    with pytest.raises(SystemExit) as caught:
        parse_args(['config.py', 'checkpoint.pth', '--out', 'predictions.json'])
    assert caught.value.code == 2
    assert 'predictions.json must end in .pkl or .pickle' in capsys.readouterr().err
