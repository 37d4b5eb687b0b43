"""Data on disk appears whole or not at all, whoever asks for it and however often."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdysample.scenes import CLASSES, render_frame, render_scenes, writer

SMALL = dict(num_train=9, num_val=3, size=(48, 64), seed=1)
FORK = multiprocessing.get_context('fork')


def tree(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def leftovers(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith('.lock')]


def test_files_hold_the_frame(scenes_root, arguments):
    for split, index in (('train', 0), ('train', 4), ('val', 1)):
        frame = render_frame(arguments['seed'], split, index, arguments['size'])
        name = f'{index:06d}'
        picture = np.asarray(Image.open(scenes_root / split / f'{name}.jpg'))
        assert np.abs(picture.astype(int) - frame.image).mean() < 3
        semantic = np.asarray(Image.open(scenes_root / 'semantic' / split / f'{name}.png'))
        assert (semantic == frame.semantic).all() and semantic.max() < len(CLASSES)
        depth = np.asarray(Image.open(scenes_root / 'depth' / split / f'{name}.png'))
        np.testing.assert_allclose(depth / 1000, frame.depth, atol=5.1e-4)
    assert not (scenes_root / 'train' / '000005.jpg').exists()


def test_files_do_not_depend_on_the_number_of_workers_or_pictures(tmp_path):
    one = render_scenes(tmp_path / 'one', workers=1, **SMALL)
    two = render_scenes(tmp_path / 'two', workers=2, **SMALL)
    assert tree(one) == tree(two)
    assert len(tree(one)) == 4 * 12 + 4 + 1
    more = render_scenes(tmp_path / 'more', workers=1, **{**SMALL, 'num_train': 10})
    pictures = {name: value for name, value in tree(one).items() if not name.endswith('.json')}
    assert pictures.items() <= tree(more).items()


def test_a_second_call_writes_nothing(scenes_root, arguments, monkeypatch):
    def refuse(*_):
        raise AssertionError('rendered again')

    monkeypatch.setattr(writer, '_write', refuse)
    assert (
        render_scenes(scenes_root, **{**arguments, 'size': list(arguments['size'])}) == scenes_root
    )


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(num_val=7), 'num_val is 2 there and 7 here'),
        (dict(seed=9), 'seed is 7 there and 9 here'),
        (
            dict(size=(64, 64), num_train=6),
            r'num_train is 5.*size is \[120, 160\] there and \[64, 64',
        ),
    ],
)
def test_other_arguments_are_refused(scenes_root, arguments, change, words):
    before = tree(scenes_root)
    with pytest.raises(ValueError, match=words):
        render_scenes(scenes_root, **{**arguments, **change})
    assert tree(scenes_root) == before


@pytest.mark.parametrize('fails', [False, True])
def test_scenes_of_an_earlier_version_are_rendered_anew(tmp_path, monkeypatch, fails):
    root = render_scenes(tmp_path / 'scenes', workers=1, **SMALL)
    expected, manifest = tree(root), json.loads((root / 'manifest.json').read_text())
    (root / 'manifest.json').write_text(json.dumps({**manifest, 'version': 1}))
    (root / 'train' / '000000.jpg').write_bytes(b'an older picture')
    old = tree(root)
    with pytest.raises(ValueError, match=r'version is 1 there.*seed is 1 there and 2 here'):
        render_scenes(root, workers=1, **{**SMALL, 'seed': 2})
    if fails:
        monkeypatch.setattr(writer, '_write_scene', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            render_scenes(root, workers=1, **SMALL)
        assert tree(root) == old
    else:
        assert tree(render_scenes(root, workers=1, **SMALL)) == expected
    assert leftovers(tmp_path) == ['scenes']


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    with pytest.raises(ValueError, match='mine exists and is no scenes data'):
        render_scenes(tmp_path / 'mine', **SMALL)
    with pytest.raises(ValueError, match=r'thesis\.txt exists and is no scenes data'):
        render_scenes(tmp_path / 'mine' / 'thesis.txt', **SMALL)
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    'change, error, words',
    [
        (dict(num_train=-1), ValueError, 'num_train.*at least 0.*-1'),
        (dict(num_val=1.5), TypeError, 'num_val must be an integer.*1.5'),
        (dict(size=(16, 64)), ValueError, r'size\[0\].*at least 32.*16'),
        (dict(size=64), ValueError, r'size must be \(height, width\).*64'),
        (dict(seed=-4), ValueError, 'seed.*-4'),
        (dict(workers=0), ValueError, 'workers.*at least 1.*0'),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        render_scenes(tmp_path / 'scenes', **{**SMALL, **change})
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize('interruption', [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, interruption):
    write_scene, written = writer._write_scene, []

    def fail_late(*args):
        if len(written) == 5:
            raise interruption
        written.append(args)
        return write_scene(*args)

    monkeypatch.setattr(writer, '_write_scene', fail_late)
    with pytest.raises(interruption):
        render_scenes(tmp_path / 'scenes', workers=1, **SMALL)
    assert len(written) == 5
    assert leftovers(tmp_path) == []


def test_a_killed_run_is_no_obstacle(tmp_path):
    root = tmp_path / 'scenes'
    process = FORK.Process(target=render_scenes, args=(root, 400, 0, (240, 320), 0, 2))
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('.scenes.partial/train/*.jpg')):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not root.exists()
    render_scenes(root, workers=1, **SMALL)
    assert len(list((root / 'train').iterdir())) == SMALL['num_train']
    assert leftovers(tmp_path) == ['scenes']


def _render_and_report(queue, barrier, root):
    barrier.wait()
    written = []
    original = writer._write
    writer._write = lambda *args: (written.append(1), original(*args))
    render_scenes(root, workers=1, **SMALL)
    queue.put(len(written))


def test_of_two_processes_one_renders_and_both_succeed(tmp_path):
    queue, barrier = FORK.Queue(), FORK.Barrier(2)
    processes = [
        FORK.Process(target=_render_and_report, args=(queue, barrier, tmp_path / 'scenes'))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    counts = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert counts == [0, 1]
    assert leftovers(tmp_path) == ['scenes']


def test_command_line(tmp_path, monkeypatch, capsys):
    path = Path(__file__).parents[2] / 'tools' / 'render_scenes.py'
    spec = importlib.util.spec_from_file_location('render_scenes_command', path)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    arguments = (
        '--out',
        tmp_path / 'scenes',
        '--num-train',
        2,
        '--num-val',
        1,
        '--size',
        48,
        64,
        '--seed',
        1,
        '--workers',
        1,
        '--preview',
        tmp_path / 'sheet.png',
    )
    monkeypatch.setattr(sys, 'argv', ['render_scenes.py', *map(str, arguments)])
    command.main()
    manifest = json.loads((tmp_path / 'scenes' / 'manifest.json').read_text())
    assert (manifest['num_train'], manifest['num_val'], manifest['size']) == (2, 1, [48, 64])
    assert Image.open(tmp_path / 'sheet.png').size == (4 * 68, 4 * 52)
    monkeypatch.setattr(sys, 'argv', ['render_scenes.py'])
    with pytest.raises(SystemExit):
        command.main()
    assert '--out, --preview or both' in capsys.readouterr().err
