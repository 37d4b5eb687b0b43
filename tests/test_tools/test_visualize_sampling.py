"""tools/visualize_sampling.py on tiny detectors and segmentors whose offsets are known."""

from __future__ import annotations

import errno
import os
import re
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdysample.engine.errors import UsageError
from mmdysample.sampling import command
from mmdysample.sampling.positions import find_dysample

OFFSETS = ((0.5, -0.25), (-0.75, 0.5))  # of the two groups, x and y in input pixels
WIDTH, HEIGHT = 120, 84

UPSAMPLE = 'dict(type="dysample", groups=2)'
DERIVED = {
    # Halved to 60 x 42, then padded to 64 x 64; strides 32 and 16 are upsampled.
    'mmdet': f"""
_base_ = {{base!r}}
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    neck=dict(type='UpsampleFPN', upsample_cfg={UPSAMPLE}))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(60, 60), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
""",
    # Not resized; 120 x 84 is no multiple of the strides.
    'mmseg': f"""
_base_ = {{base!r}}
model = dict(
    decode_head=dict(
        _delete_=True, type='UpsampleSegformerHead', upsample_cfg={UPSAMPLE},
        in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8, num_classes=2,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(_delete_=True, mode='slide', crop_size=(64, 64), stride=(32, 32)))
""",
}
LAYERS = {
    'mmdet': ['neck.upsample_modules.0', 'neck.upsample_modules.1'],
    'mmseg': [f'decode_head.upsample_modules.{index}' for index in range(6)],
}


@pytest.fixture(scope='module')
def dysample_configs(configs, tmp_path_factory):
    """The tiny configs of both frameworks, with DySample."""
    folder = tmp_path_factory.mktemp('dysample_configs')
    paths = {}
    for scope, text in DERIVED.items():
        paths[scope] = folder / f'{scope}.py'
        paths[scope].write_text(text.format(base=str(configs[scope])))
    return paths


@pytest.fixture(scope='module')
def checkpoints(dysample_configs, tmp_path_factory):
    """Weights with which every DySample layer moves its groups by OFFSETS."""
    folder = tmp_path_factory.mktemp('weights')
    paths = {}
    for scope, config in dysample_configs.items():
        init_default_scope(scope)
        model = MODELS.build(Config.fromfile(config).model)
        layers = find_dysample(model)
        assert list(layers) == LAYERS[scope]
        for layer in layers.values():
            torch.nn.init.zeros_(layer.offset.weight)
            bias = torch.tensor(OFFSETS).T.flatten().repeat_interleave(4) / layer.scope_factor
            layer.offset.bias.data.copy_(bias)
        paths[scope] = folder / f'{scope}.pth'
        torch.save(dict(state_dict=model.state_dict(), meta={}), paths[scope])
    return paths


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('image') / 'noise.png'
    pixels = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def draw(monkeypatch, capsys):
    """Run the tool in this process; gives exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
        monkeypatch.setenv('LOCAL_RANK', '0')
        status = command.main([*map(str, arguments), '--device', 'cpu'])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('points', ['auto', 'grid'])
def test_draws_every_layer(draw, dysample_configs, checkpoints, image, tmp_path, scope, points):
    checkpoint = ('--checkpoint', checkpoints[scope])
    options = ('--points', points, '--out', tmp_path)
    status, output, errors = draw(dysample_configs[scope], image, *checkpoint, *options)
    assert status == 0, errors
    for name in LAYERS[scope]:
        (line,) = (line for line in output.splitlines() if line.startswith(f'{name}: '))
        # The lengths are 0.559 and 0.901: all beyond half a pixel, and 0.73 in the mean.
        assert '2 groups' in line and 'mean offset 0.73 ' in line and '100.0% beyond' in line
    expected = {f'noise_{n}_{kind}.png' for n in LAYERS[scope] for kind in ('arrows', 'lengths')}
    assert {path.name for path in tmp_path.iterdir()} == expected
    plot = pytest.importorskip('mmdysample.sampling.plot')
    for name in LAYERS[scope]:
        drawn = np.asarray(Image.open(tmp_path / f'noise_{name}_arrows.png'))
        assert drawn.shape[1] == WIDTH * plot.enlargement((HEIGHT, WIDTH))
        for colour in plot.group_colours(2):
            assert found(drawn[: HEIGHT * plot.enlargement((HEIGHT, WIDTH))], colour)


def found(drawn, colour) -> list[tuple[int, int]]:
    """Columns and rows that have a colour."""
    mask = (np.abs(drawn.astype(int) - np.round(255 * np.asarray(colour))) <= 3).all(axis=-1)
    return [(x, y) for y, x in np.argwhere(mask).tolist()]


@pytest.mark.parametrize(
    ('scope', 'layer', 'point', 'start', 'input_pixel'),
    [
        # 16 network pixels to an input pixel, 8 to an output pixel, and twice that in the picture:
        # the point is in row 2 and column 2, whose middle is 2.5 * 16 from the corner.
        ('mmdet', 'neck.upsample_modules.0', '45,33', (40, 40), 32),
        # Stride 16 of the picture itself: row 8 and column 5, each of 8 pixels.
        ('mmseg', 'decode_head.upsample_modules.1', '40,70', (44, 68), 16),
    ],
)
def test_arrows_land_on_the_right_place(
    draw, dysample_configs, checkpoints, image, tmp_path, scope, layer, point, start, input_pixel
):
    plot = pytest.importorskip('mmdysample.sampling.plot')
    options = ('--checkpoint', checkpoints[scope], '--out', tmp_path, '--layer', layer)
    status, _, errors = draw(dysample_configs[scope], image, *options, '--points', point)
    assert status == 0, errors
    drawn = np.asarray(Image.open(tmp_path / f'noise_{layer}_arrows.png'))
    zoom = plot.enlargement((HEIGHT, WIDTH))
    for offset, colour in zip(OFFSETS, plot.group_colours(2), strict=True):
        coloured = np.array(found(drawn[: zoom * HEIGHT], colour))
        end = np.add(start, np.multiply(offset, input_pixel))
        corners = zoom * np.sort([start, end], axis=0)
        extent = np.array([coloured.min(axis=0), coloured.max(axis=0)])
        assert np.abs(extent - corners).max() <= 6, (extent, corners)  # a head is 8 wide


def test_list_shows_layers_and_shapes_and_draws_nothing(draw, dysample_configs, image, tmp_path):
    status, output, _ = draw(dysample_configs['mmdet'], image, '--list', '--out', tmp_path / 'no')
    assert status == 0 and not (tmp_path / 'no').exists()
    coarse = 'neck.upsample_modules.1: 16 x 2 x 2 -> 4 x 4, stride 32, 2 groups, style lp'
    assert coarse in output
    assert 'neck.upsample_modules.0: 16 x 4 x 4 -> 8 x 8, stride 16' in output


def test_windows_are_replaced_by_the_whole_image(draw, dysample_configs, image):
    """The segmentor tests with windows of 64 x 64; its maps are those of 84 x 120."""
    _, output, _ = draw(dysample_configs['mmseg'], image, '--list')
    assert 'decode_head.upsample_modules.0: 8 x 3 x 4 -> 6 x 8, stride 32' in output


def damaged(tmp_path):
    path = tmp_path / 'damaged.png'
    path.write_bytes(b'\x89PNG and no more')
    return path


def empty(tmp_path):
    path = tmp_path / 'empty.png'
    path.write_bytes(b'')
    return path


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--layer', 'neck.up'], r'no DySample layer neck\.up; it has neck\.upsample_modules\.0, '),
        (['--points', '120,10'], r'120,10 is outside the picture: x may be 0 to 119, y 0 to 83'),
        (['--points', '10,-1', '5,5'], '10,-1 is outside'),
        (['--points', '1,2,3'], '--points takes auto, grid, or points such as 120,80'),
        (['--points', 'auto', '3,4'], '--points takes'),
        (['--points', 'everywhere'], '--points takes'),
        (['--points', 'nan,3'], '--points takes'),
        (['--checkpoint', 'none.pth'], 'checkpoint none.pth does not exist'),
        (['--device', 'gpu'], '--device gpu cannot be used here'),
    ],
)
def test_usage_errors(monkeypatch, capsys, dysample_configs, image, tmp_path, arguments, message):
    out = ['--out', str(tmp_path / 'out')]
    status = command.main([str(dysample_configs['mmdet']), str(image), *out, *arguments])
    assert status == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('make', [damaged, empty, lambda folder: folder / 'absent.png'])
def test_unreadable_images(draw, dysample_configs, tmp_path, make):
    path = make(tmp_path)
    status, _, errors = draw(dysample_configs['mmdet'], path)
    assert status == 2 and re.search(f'{path} (cannot be read|does not exist)', errors)


def test_model_without_dysample(draw, configs, image):
    status, _, errors = draw(configs['mmdet'], image)
    assert status == 2 and 'has no DySample layer' in errors


def test_other_upsamplers_are_named(draw, dysample_configs, image, tmp_path):
    config = tmp_path / 'carafe.py'
    config.write_text(
        f'_base_ = {str(dysample_configs["mmdet"])!r}\n'
        "model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='carafe')))\n"
    )
    status, _, errors = draw(config, image)
    assert status == 2 and 'it upsamples with CARAFE' in errors


def test_checkpoint_without_the_backbone(draw, dysample_configs, image, tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save({'neck.upsample_modules.0.offset.weight': torch.ones(16, 16, 1, 1)}, path)
    status, _, errors = draw(dysample_configs['mmdet'], image, '--checkpoint', path)
    assert (status, errors.count('\n')) == (2, 1)
    assert "model's backbone" in errors


def test_a_model_that_cannot_be_built(draw, dysample_configs, image):
    options = ('--cfg-options', 'model.neck.upsample_cfg.groups=7')
    status, _, errors = draw(dysample_configs['mmdet'], image, *options)
    assert (status, errors.count('\n')) == (2, 1)
    assert errors.startswith('error: the config cannot be built: ') and 'groups' in errors


def test_a_folder_or_disk_that_takes_no_pictures(
    draw, dysample_configs, image, tmp_path, monkeypatch
):
    (tmp_path / 'file').touch()
    status, _, errors = draw(dysample_configs['mmdet'], image, '--out', tmp_path / 'file/below')
    assert (status, errors.count('\n')) == (2, 1)
    assert f'nothing can be written to the folder {tmp_path / "file/below"}: Not a' in errors

    monkeypatch.setattr(command, 'check_writable', lambda folder: None)  # full a moment later
    full = OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', Mock(side_effect=full))
    status, _, errors = draw(dysample_configs['mmdet'], image, '--out', tmp_path / 'out')
    assert (status, errors.count('\n')) == (2, 1)
    assert 'No space left on device' in errors
    assert not list((tmp_path / 'out').iterdir())


def test_checkpoint_of_another_model(draw, dysample_configs, checkpoints, image):
    other = ('--checkpoint', checkpoints['mmdet'])
    status, _, errors = draw(dysample_configs['mmseg'], image, *other)
    assert status == 2 and 'has no weights for decode_head.upsample_modules.0' in errors


def traced(image, *steps):
    """The way from network pixels to picture pixels that the tool finds for a pipeline."""
    from mmengine.dataset import Compose

    init_default_scope('mmseg')
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackSegInputs')]
    load, *rest = Compose(pipeline).transforms
    return command._prepare(rest, command._load(load, str(image)))[1]


FLIP = dict(type='RandomFlip', prob=1.0)
PAD = dict(type='Pad', size=(160, 160), pad_val=dict(img=0))
HALVE = dict(type='Resize', scale=(60, 42), keep_ratio=True)


@pytest.mark.parametrize(
    ('steps', 'network', 'picture'),
    [
        ([], (7, 9), (7, 9)),
        ([HALVE], (10, 20), (20.5, 40.5)),
        ([dict(HALVE, backend='pillow')], (10, 20), (20.5, 40.5)),
        ([dict(type='Resize', scale=(180, 168))], (10, 20), (10.5 / 1.5 - 0.5, 9.75)),
        ([HALVE, PAD], (10, 20), (20.5, 40.5)),
        ([FLIP], (10, 20), (109, 20)),
        # Rows from 44, columns from 10, as KITTI's benchmark cuts; then turned round.
        ([dict(type='KBCrop', size=(40, 100)), FLIP, PAD], (0, 0), (109, 44)),
        ([PAD, dict(type='Resize', scale=(80, 80))], (10, 20), (20.5, 40.5)),
    ],
)
def test_pipelines_are_traced_back_to_the_picture(image, steps, network, picture):
    assert traced(image, *steps)(network) == pytest.approx(picture, abs=1e-3)


def test_pipelines_that_turn_the_picture_are_refused(image):
    with pytest.raises(UsageError, match='more than resize, crop, flip and pad'):
        traced(image, dict(type='RandomRotate', prob=1.0, degree=(20, 21)))
    with pytest.raises(UsageError, match='refuses the image'):
        traced(image, dict(type='KBCrop', size=(400, 100)))


def test_maps_of_boxes_are_not_drawn():
    from mmdysample.sampling.positions import Sampling

    positions = torch.zeros(3, 1, 2, 28, 28)
    many = Sampling(positions, positions, (14, 14), 2)
    one = Sampling(positions[:1], positions[:1], (14, 14), 2)
    reason = command._not_placeable
    assert 'for each box' in reason('mask_head.upsample', many, (224, 224))
    assert 'for each box' in reason('roi_head.mask_head.upsample', one, (224, 224))
    assert 'not a whole fraction' in reason('head.upsample', one, (64, 128))
    assert 'not run' in reason('head.upsample', None, (224, 224))
    assert reason('head.upsample', one, (224, 224)) is None
