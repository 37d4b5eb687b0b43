"""SamplingStatsHook: what it logs, and that training does not notice it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmengine')

from mmengine.registry import HOOKS
from networks import fixed_layer

from mmdysample import DySample
from mmdysample.sampling.hook import SamplingStatsHook
from mmdysample.sampling.positions import STATISTICS

LENGTH = 0.559017  # of the offset (0.5, -0.25)


class Recorder:
    """A visualizer that keeps what it is given."""

    def __init__(self):
        self.scalars, self.images = [], []

    def add_scalars(self, scalars, step):
        self.scalars.append((step, scalars))

    def add_image(self, name, image, step):
        self.images.append((step, name, image))


def run_iterations(hook, model, inputs, visualizer=None) -> Recorder:
    """Call the hook as the runner does, with a forward and a backward pass per input."""
    visualizer = visualizer or Recorder()
    runner = SimpleNamespace(model=model, iter=0, visualizer=visualizer)
    hook.before_train(runner)
    for batch in inputs:
        hook.before_train_iter(runner, runner.iter)
        for x in batch if isinstance(batch, list) else [batch]:
            model(x).float().square().sum().backward()
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1
    hook.after_train(runner)
    return visualizer


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(interval=0), ValueError, 'interval must be at least 1, got 0'),
        (dict(interval=2.5), TypeError, r'interval must be an integer, got 2\.5'),
        (dict(interval=True), TypeError, 'interval must be an integer'),
        (dict(interval='10'), TypeError, 'interval must be an integer'),
        (dict(layers='neck'), TypeError, 'layers must be a list of names or None'),
        (dict(layers=[1]), TypeError, 'layers must be a list of names'),
        (dict(layers=[]), ValueError, 'layers must name a layer'),
        (dict(draw_maps=1), TypeError, 'draw_maps must be True or False'),
        (dict(map_limit='1'), TypeError, 'map_limit must be a number'),
        (dict(map_limit=0), ValueError, 'map_limit must be positive'),
        (dict(map_limit=float('nan')), ValueError, 'map_limit must be positive'),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        HOOKS.build(dict(type='SamplingStatsHook', **arguments))


def test_models_that_it_cannot_watch():
    runner = SimpleNamespace(model=torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    with pytest.raises(ValueError, match='needs a DySample layer, Sequential has none'):
        SamplingStatsHook().before_train(runner)
    runner.model.append(fixed_layer())
    with pytest.raises(ValueError, match=r"layers names \['neck'\].* are \['1'\]"):
        SamplingStatsHook(layers=['1', 'neck']).before_train(runner)


def test_logged_values_and_iterations():
    model = torch.nn.ModuleDict(dict(far=fixed_layer(), near=fixed_layer((0.0, 0.25))))
    model.forward = lambda x: model['near'](model['far'](x))
    x = torch.randn(2, 4, 3, 4)
    logged = run_iterations(SamplingStatsHook(interval=2), model, [x] * 5).scalars
    assert [step for step, _ in logged] == [2, 4]
    # far: 6 x 8 places on a map of 3 x 4, moved by +0.5 in x: the last, 3.25 + 0.5, is beyond 3.5,
    # one column of eight; up by 0.25 to -0.5 none. near: on 6 x 8, moved by 0.25, none.
    expected = {
        'sampling/far/offset_length': LENGTH,
        'sampling/far/beyond_half_pixel': 1,
        'sampling/far/outside_map': 1 / 8,
        'sampling/near/offset_length': 0.25,
        'sampling/near/beyond_half_pixel': 0,
        'sampling/near/outside_map': 0,
    }
    for _, scalars in logged:
        assert scalars == pytest.approx(expected, abs=1e-6)


def test_calls_of_one_iteration_count_by_their_positions():
    # Maps of 3 x 4 and 1 x 4. In x the last of 8 columns ends at 3.75, beyond the edge; in y the
    # first of 6 rows, and the first of 2, at -0.75. So 8 + 5 of 48 are outside, and 8 + 1 of 16.
    layer = fixed_layer((0.5, -0.5))
    batch = [torch.randn(1, 4, 3, 4), torch.randn(1, 4, 1, 4)]
    ((_, scalars),) = run_iterations(SamplingStatsHook(1), layer, [batch]).scalars
    assert scalars['sampling//outside_map'] == pytest.approx((13 + 9) / 64)


def test_layers_are_chosen_by_name():
    model = torch.nn.Sequential(fixed_layer(), fixed_layer())
    logged = run_iterations(SamplingStatsHook(1, ['1']), model, [torch.randn(1, 4, 2, 2)])
    ((_, scalars),) = logged.scalars
    assert set(scalars) == {f'sampling/1/{statistic}' for statistic in STATISTICS}


def test_nothing_hangs_on_the_layers_between():
    layer, counts = fixed_layer(), []
    layer.register_forward_hook(lambda *_: counts.append(len(layer._forward_pre_hooks)))
    run_iterations(SamplingStatsHook(3), layer, [torch.randn(1, 4, 2, 2)] * 4)
    assert counts == [0, 0, 1, 0]
    assert not layer._forward_pre_hooks


def test_a_failed_iteration_leaves_nothing_to_the_next():
    layer, hook, recorder = fixed_layer(), SamplingStatsHook(1), Recorder()
    runner = SimpleNamespace(model=layer, iter=0, visualizer=recorder)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    layer(torch.randn(1, 4, 2, 2))  # and then the loss fails, and is caught
    layer.offset.bias.data.zero_()
    hook.before_train_iter(runner, 0)
    layer(torch.randn(1, 4, 2, 2))
    assert len(layer._forward_pre_hooks) == 1
    hook.after_train_iter(runner, 0)
    ((_, scalars),) = recorder.scalars
    assert scalars['sampling//offset_length'] == 0


def test_layers_that_did_not_run_are_left_out(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'mmdysample.sampling.hook.print_log', lambda text, **_: messages.append(text)
    )
    model = torch.nn.ModuleDict(dict(used=fixed_layer(), idle=fixed_layer()))
    model.forward = lambda x: model['used'](x)
    logged = run_iterations(SamplingStatsHook(1), model, [torch.randn(1, 4, 2, 2)]).scalars
    assert {name.split('/')[1] for name in logged[0][1]} == {'used'} and not messages
    run_iterations(SamplingStatsHook(1, ['idle']), model, [torch.randn(1, 4, 2, 2)] * 2)
    assert len(messages) == 1 and 'saw no DySample layer run in iteration 1' in messages[0]


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_gradients_and_random_numbers_are_the_same(dtype):
    def gradients(hook):
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 1), torch.nn.Dropout(0.5), DySample(4, groups=2, dyscope=True)
        )
        x = torch.randn(2, 3, 4, 4)
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            if hook is None:
                model(x).float().square().sum().backward()
            else:
                assert run_iterations(hook, model, [x]).scalars
        return [p.grad for p in model.parameters()], torch.get_rng_state()

    (plain, state), (watched, watched_state) = gradients(None), gradients(SamplingStatsHook(1))
    assert torch.equal(state, watched_state)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_maps_show_the_first_image_on_a_fixed_scale():
    hook = SamplingStatsHook(2, draw_maps=True, map_limit=0.5)
    images = run_iterations(
        hook, torch.nn.Sequential(fixed_layer((0, 0.7))), [torch.randn(2, 4, 2, 3)] * 2
    )
    ((step, name, image),) = images.images
    assert (step, name, image.shape, image.dtype) == (2, 'sampling_0', (4, 6, 3), np.uint8)
    assert (image == [253, 231, 37]).all()  # the last colour


@pytest.fixture(scope='module')
def segmentor(configs, tmp_path_factory):
    """The tiny segmentor with DySample and the hook, through custom_imports alone."""
    pytest.importorskip('mmseg')
    path = tmp_path_factory.mktemp('hooked') / 'hooked.py'
    path.write_text(f"""
_base_ = {str(configs['mmseg'])!r}
custom_imports = dict(imports=['mmdysample'])
model = dict(decode_head=dict(
    _delete_=True, type='UpsampleSegformerHead', upsample_cfg=dict(type='dysample', groups=2),
    in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8, num_classes=2,
    norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')))
custom_hooks = [dict(type='SamplingStatsHook', interval=2, draw_maps=True)]
""")
    return path


def test_training_logs_and_is_not_changed(tool, segmentor, tmp_path):
    from mmdysample.engine.checkpoint import load_from_local

    plain = tmp_path / 'plain.py'
    plain.write_text(f'_base_ = {str(segmentor)!r}\ncustom_hooks = []\n')
    for name, config in (('hooked', segmentor), ('plain', plain)):
        assert tool('train', config, '--work-dir', tmp_path / name) == 0
    weights = [
        load_from_local(str(tmp_path / name / 'epoch_3.pth'))['state_dict']
        for name in ('hooked', 'plain')
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    (file,) = (tmp_path / 'hooked').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if any(key.startswith('sampling/') for key in row)]
    assert [row['step'] for row in rows] == [2, 4, 6]
    names = [f'decode_head.upsample_modules.{index}' for index in range(6)]
    for row in rows:
        assert row.keys() == {'step'} | {f'sampling/{n}/{key}' for n in names for key in STATISTICS}
        assert all(0 < row[f'sampling/{name}/offset_length'] < 0.5 for name in names)
    lengths = [row[f'sampling/{names[0]}/offset_length'] for row in rows]
    assert len(set(lengths)) == 3  # the layers learn
    for name in names:
        path = file.parent / 'vis_image' / f'sampling_{name}_6.png'
        assert min(Image.open(path).size) > 2
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = accumulator.EventAccumulator(str(file.parent))
    events.Reload()
    logged = events.Scalars(f'sampling/{names[0]}/offset_length')
    assert [event.step for event in logged] == [2, 4, 6]
    assert [event.value for event in logged] == pytest.approx(lengths)


TWO_PROCESSES = """
import json, sys
import torch
from mmengine.model import MMDistributedDataParallel
sys.path[:0] = sys.argv[1:]
from networks import fixed_layer
from test_sampling_hook import SamplingStatsHook, run_iterations

torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
model = torch.nn.ModuleDict(dict(both=fixed_layer(), second=fixed_layer((0.0, 0.25))))
model.forward = lambda x: model['both'](x) if rank == 0 else model['second'](model['both'](x))
wrapped = MMDistributedDataParallel(model, find_unused_parameters=True)
# Rank 0 has a batch of one, rank 1 of three, on a narrower map.
x = torch.zeros(1, 4, 2, 4) if rank == 0 else torch.zeros(3, 4, 2, 2)
logged = run_iterations(SamplingStatsHook(1), wrapped, [x]).scalars
if rank == 0:
    print(json.dumps(logged))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_share_their_statistics(tmp_path):
    script, folder = tmp_path / 'script.py', Path(__file__).parent
    script.write_text(TWO_PROCESSES)
    common = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    common.update(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, (folder, folder.parent))],
            env=dict(common, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    ((step, scalars),) = json.loads(results[0][0].splitlines()[-1])
    assert step == 1
    # +0.5 in x puts one column of 8 out on the wide map, of 32 positions 4; on the narrow one of
    # 4 columns, of 48 positions 12.
    assert scalars['sampling/both/outside_map'] == pytest.approx((4 + 12) / (32 + 48))
    assert scalars['sampling/both/offset_length'] == pytest.approx(LENGTH, abs=1e-6)
    assert scalars['sampling/second/offset_length'] == pytest.approx(0.25)


def free_port() -> str:
    import socket

    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])
