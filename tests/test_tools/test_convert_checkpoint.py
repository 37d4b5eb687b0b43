"""Checkpoints with the published naming become ours, or are refused with the reason."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attack import Attack

pytest.importorskip('mmdet')

from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdysample.engine.checkpoint import load_from_local
from mmdysample.engine.convert import convert_checkpoint, convert_state_dict, main
from mmdysample.engine.errors import RefusedCheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs'
ROWS = {
    'faster_rcnn': 'faster-rcnn_r50_fpn-{}_1x_coco.py',
    'mask_rcnn': 'mask-rcnn_r50_fpn-{}_1x_coco.py',
    'panoptic_fpn': 'panoptic-fpn_r50_fpn-{}_1x_coco.py',
}
SMALL = """
_base_ = {base!r}
model = dict(
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(fc_out_channels=8)))
"""


@pytest.fixture(scope='module')
def small_config(tmp_path_factory):
    """A published row with a ResNet-18 and a thin box head: ``small_config('mask_rcnn', ...)``."""
    folder = tmp_path_factory.mktemp('configs')

    def write(kind: str, upsampler: str = 'dysample-plus') -> Path:
        base = CONFIGS / kind / ROWS[kind].format(upsampler)
        path = folder / base.name
        path.write_text(SMALL.format(base=str(base)))
        return path

    return write


def build(config: Path) -> torch.nn.Module:
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model)


def published(config: Path, modules: int = 3, unused: int | None = None) -> OrderedDict:
    """Trained weights as a fork of the authors stores them.

    Named by hand: in order of the pyramid's levels, with a bias on the scope's convolution and
    without the counters that early versions of PyTorch did not store. Modules that were never
    used keep zero biases.
    """
    torch.manual_seed(1)
    state = OrderedDict(
        (key, torch.randn_like(value) if value.is_floating_point() else value)
        for key, value in build(config).state_dict().items()
        if not key.startswith('neck.upsample_modules') and 'num_batches_tracked' not in key
    )
    plus = 'plus' in str(config)
    for i in range(modules):
        for conv in ('offset', 'scope') if plus else ('offset',):
            prefix = f'neck.upsample_modules.{i}.{conv}'
            state[f'{prefix}.weight'] = torch.randn(32, 256, 1, 1) * 0.02
            state[f'{prefix}.bias'] = torch.randn(32) * (i != unused)
        half = torch.tensor([-0.25, 0.25])
        y, x = torch.meshgrid(half, half, indexing='ij')
        position = torch.stack((x, y))[:, None].expand(2, 4, 2, 2)
        state[f'neck.upsample_modules.{i}.init_pos'] = position.reshape(1, 32, 1, 1).clone()
    return state


def save(state: OrderedDict, path: Path, **extra) -> Path:
    """With the metadata of MMDetection 2.x."""
    meta = dict(CLASSES=('cell',) * 80, epoch=12, iter=87960, mmdet_version='2.25.1')
    torch.save(dict(meta=meta, state_dict=state, **extra), path)
    return path


def sample_as_published(x: torch.Tensor, state: OrderedDict, prefix: str) -> torch.Tensor:
    """The published module with a scope bias, at groups 4 and factor 2, in float64."""
    x = x.double()
    n, c, h, w = x.shape
    weights = {k.removeprefix(prefix): v.double() for k, v in state.items() if prefix in k}
    offset = F.conv2d(x, weights['offset.weight'], weights['offset.bias'])
    scope = F.conv2d(x, weights['scope.weight'], weights['scope.bias']).sigmoid() * 0.5
    shift = F.pixel_shuffle(offset * scope + weights['init_pos'], 2).reshape(n, 2, 4, 2 * h, 2 * w)
    rows, columns = torch.arange(2 * h) // 2, torch.arange(2 * w) // 2
    px = (columns + shift[:, 0] + 0.5) / w * 2 - 1
    py = (rows[:, None] + shift[:, 1] + 0.5) / h * 2 - 1
    grid = torch.stack((px, py), -1).flatten(0, 1)
    groups = x.reshape(n * 4, c // 4, h, w)
    out = F.grid_sample(groups, grid, align_corners=False, padding_mode='border')
    return out.reshape(n, c, 2 * h, 2 * w)


@pytest.mark.parametrize('kind', ROWS)
def test_converted_weights_load_strictly_and_keep_every_value(kind, small_config, tmp_path):
    config = small_config(kind)
    state = published(config)
    source = save(state, tmp_path / 'fork.pth', optimizer=dict(param_groups=[dict(lr=0.02)]))
    target = tmp_path / 'ours' / 'converted.pth'
    conversion = convert_checkpoint(str(config), str(source), str(target))
    assert not conversion.renamed and not conversion.dropped
    assert conversion.added == [f'neck.upsample_modules.{i}.scope.bias' for i in range(3)]
    assert conversion.filled
    assert all(key.endswith('num_batches_tracked') for key in conversion.filled)

    checkpoint = load_from_local(str(target))
    assert set(checkpoint) == {'meta', 'state_dict'}
    assert checkpoint['meta']['dataset_meta']['classes'] == ('cell',) * 80
    assert checkpoint['meta']['trained'] == dict(epoch=12, iter=87960, mmdet_version='2.25.1')
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert checkpoint['meta']['converted_from'] == dict(name='fork.pth', sha256=digest)
    written = checkpoint['state_dict']
    assert all(torch.equal(written[key], value) for key, value in state.items())
    build(config).load_state_dict(written, strict=True)


@pytest.mark.parametrize('unused', [0, 3])
@pytest.mark.parametrize('upsampler', ['dysample', 'dysample-plus'])
def test_the_module_that_was_never_used_is_found(unused, upsampler, small_config):
    """Whichever end of the list it is at, the used ones keep their order."""
    config = small_config('faster_rcnn', upsampler)
    state = published(config, modules=4, unused=unused)
    conversion = convert_state_dict(state, build(config))
    used = [i for i in range(4) if i != unused]
    for new, old in enumerate(used):
        for name in ('offset.weight', 'offset.bias'):
            key = f'neck.upsample_modules.{new}.{name}'
            assert torch.equal(
                conversion.state_dict[key], state[f'neck.upsample_modules.{old}.{name}']
            )
    assert {key.split('.')[2] for key in conversion.dropped} == {str(unused)}
    assert set(conversion.dropped.values()) == {'its upsampler was never used'}
    assert len(conversion.renamed) == (0 if unused == 3 else 3 * (3 + 2 * ('plus' in upsampler)))


def test_an_index_decides_where_the_weights_do_not(small_config):
    config = small_config('faster_rcnn')
    state = published(config, modules=4)
    with pytest.raises(RefusedCheckpointError, match=r'\[0, 1, 2, 3\].*--unused-upsampler'):
        convert_state_dict(state, build(config))
    converted = convert_state_dict(state, build(config), unused=1).state_dict
    key = 'neck.upsample_modules.{}.offset.weight'
    assert torch.equal(converted[key.format(1)], state[key.format(2)])
    with pytest.raises(RefusedCheckpointError, match=r'unused are \[7\]'):
        convert_state_dict(state, build(config), unused=7)


def test_the_bias_of_the_scope_keeps_its_effect(small_config, tmp_path):
    """Converted, loaded with mmdet's API and run, against the published formula."""
    config = small_config('faster_rcnn')
    state = published(config, modules=4, unused=3)
    source = save(state, tmp_path / 'fork.pth')
    target = tmp_path / 'converted.pth'
    convert_checkpoint(str(config), str(source), str(target))
    neck = init_detector(str(config), str(target), device='cpu').neck
    x = torch.randn(1, 256, 5, 7)
    for i, up in enumerate(neck.upsample_modules):
        expected = sample_as_published(x, state, f'neck.upsample_modules.{i}.')
        torch.testing.assert_close(up(x), expected.float(), atol=2e-5, rtol=1e-4)
        plain = dict(state, **{f'neck.upsample_modules.{i}.scope.bias': torch.zeros(32)})
        other = sample_as_published(x, plain, f'neck.upsample_modules.{i}.')
        assert (expected - other).abs().max() > 0.1  # so the comparison above sees the bias


def test_prefixes_of_data_parallel_training(small_config):
    config = small_config('faster_rcnn', 'dysample')
    state = published(config)
    wrapped = OrderedDict((f'module.{key}', value) for key, value in state.items())
    wrapped['module.data_preprocessor.mean'] = torch.zeros(3, 1, 1)
    conversion = convert_state_dict(wrapped, build(config))
    assert conversion.renamed == {f'module.{key}': key for key in state}
    assert conversion.dropped == {'module.data_preprocessor.mean': 'the config says it'}
    assert all(torch.equal(conversion.state_dict[key], state[key]) for key in state)


REFUSED = {
    'missing': (
        lambda s: s.pop('rpn_head.rpn_conv.weight'),
        r'missing: rpn_head\.rpn_conv\.weight',
    ),
    'left over': (lambda s: s.update({'neck.extra': torch.zeros(1)}), r'left over: neck\.extra'),
    'shape': (
        lambda s: s.update({'rpn_head.rpn_cls.bias': torch.zeros(5)}),
        r'size mismatch for rpn_head\.rpn_cls\.bias',
    ),
    'positions': (
        lambda s: s['neck.upsample_modules.1.init_pos'].neg_(),
        r'neck\.upsample_modules\.1\.init_pos holds other initial positions',
    ),
    'too few': (
        lambda s: [s.pop(k) for k in list(s) if 'modules.2' in k],
        r'missing: neck\.upsample_modules\.2\.offset\.weight',
    ),
}


@pytest.mark.parametrize('reason', REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_written(reason, small_config, tmp_path, capsys):
    change, message = REFUSED[reason]
    config = small_config('faster_rcnn')
    state = published(config)
    change(state)
    target = tmp_path / 'out' / 'converted.pth'
    arguments = [config, save(state, tmp_path / 'fork.pth'), target]
    assert main([str(argument) for argument in arguments]) == 2
    streams = capsys.readouterr()
    assert 'error: the checkpoint does not fit the config' in streams.err and not streams.out
    assert re.search(message, streams.err)
    assert not target.exists()


def test_the_wrong_model_is_refused(small_config, tmp_path):
    source = save(published(small_config('faster_rcnn')), tmp_path / 'fork.pth')
    with pytest.raises(RefusedCheckpointError, match=r'missing: roi_head\.mask_head'):
        convert_checkpoint(str(small_config('mask_rcnn')), str(source), str(tmp_path / 'out.pth'))
    with pytest.raises(RefusedCheckpointError, match=r'left over: .*scope\.weight'):
        convert_checkpoint(
            str(small_config('faster_rcnn', 'dysample')), str(source), str(tmp_path / 'out.pth')
        )


def test_files_that_run_code_are_refused_and_do_not_run(small_config, tmp_path, capsys):
    source = tmp_path / 'fork.pth'
    attack = Attack(tmp_path / 'executed')
    torch.save(dict(state_dict={'a': torch.zeros(1)}, meta=attack), source)
    config = small_config('faster_rcnn')
    assert main([str(config), str(source), str(tmp_path / 'out.pth')]) == 2
    assert 'Nothing in it was executed' in capsys.readouterr().err
    assert not (tmp_path / 'executed').exists() and not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [(dict(meta={}), 'no state_dict'), ([1], 'no weights'), (dict(a=1), 'no state_dict')],
)
def test_files_without_weights(content, message, small_config, tmp_path):
    source = tmp_path / 'fork.pth'
    torch.save(content, source)
    with pytest.raises(RefusedCheckpointError, match=message):
        convert_checkpoint(str(small_config('faster_rcnn')), str(source), str(tmp_path / 'o.pth'))


def test_paths(small_config, tmp_path, capsys):
    config = str(small_config('faster_rcnn'))
    source = save(OrderedDict(), tmp_path / 'fork.pth')
    for arguments, message in (
        ([config, str(tmp_path / 'absent.pth'), 'x.pth'], 'absent.pth does not exist'),
        (['absent.py', str(source), 'x.pth'], 'absent.py does not exist'),
        ([config, str(source), str(source)], 'is the source'),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(small_config, tmp_path, monkeypatch):
    config = small_config('faster_rcnn', 'dysample')
    source = save(published(config), tmp_path / 'fork.pth')
    target = tmp_path / 'out' / 'converted.pth'
    target.parent.mkdir()
    target.write_bytes(b'before')

    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        convert_checkpoint(str(config), str(source), str(target))
    assert target.read_bytes() == b'before'
    assert list(target.parent.iterdir()) == [target]


def test_report(small_config, tmp_path, capsys):
    config = small_config('faster_rcnn')
    source = save(published(config, modules=4, unused=0), tmp_path / 'fork.pth')
    assert main([str(config), str(source), str(tmp_path / 'converted.pth')]) == 0
    report = capsys.readouterr().out
    for line in (
        'tensors written',
        'renamed  neck.upsample_modules.1.offset.weight -> neck.upsample_modules.0.offset.weight',
        'dropped  neck.upsample_modules.0.offset.weight: its upsampler was never used',
        'filled   backbone.bn1.num_batches_tracked: missing, constant',
        'kept     neck.upsample_modules.2.scope.bias: added to the model on loading',
    ):
        assert line in report
