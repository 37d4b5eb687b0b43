"""DepthFormer's parts against loops, its parameters against the published configuration."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from networks import Reports, pyramid
from oracles import depth as oracle

from mmdysample import DySample
from mmdysample.depth import DenseDepthHead, DepthFormerSwin, HAHINeck
from mmdysample.depth.neck import sine_encoding

CONFIGS = Path(__file__).parents[2] / 'configs'
SWIN_T = CONFIGS / 'depthformer' / 'depthformer_swin-t_bilinear_2xb8-38k_nyu-416x544.py'
SMALL = CONFIGS / 'scenes' / 'depthformer_dysample-plus_10e_scenes.py'
CHANNELS = [4, 8, 12]

pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures('mmseg_scope')]


def levels_of(size=(7, 10)):
    return pyramid(CHANNELS, size)


def as_numpy(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def image(maps, index):
    """One image of a batch of maps, as the loops take it."""
    return [x[index].double().numpy() for x in maps]


# ---- backbone ----------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(64, 96), (61, 75)])
def test_backbone_puts_the_branch_before_the_stages(size):
    backbone = DepthFormerSwin(
        embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), stem_channels=6
    )
    backbone.eval()  # Swin's returns nothing
    x = torch.randn(1, 3, *size)
    outs = backbone(x)
    assert [out.shape[1] for out in outs] == [6, 8, 16, 32, 64]
    for halvings, out in enumerate(outs, start=1):
        assert out.shape[-2:] == tuple(math.ceil(s / 2**halvings) for s in size)
    wanted = torch.nn.functional.conv2d(x, backbone.conv1.weight, stride=2, padding=3)
    assert torch.allclose(outs[0], (wanted / math.sqrt(1 + 1e-5)).relu(), atol=1e-5)


# ---- neck --------------------------------------------------------------------------------------


def test_neck_equals_loops():
    neck = HAHINeck([4, 6, 8], embedding_dim=8, num_heads=2, num_points=2)
    for name, parameter in neck.named_parameters():  # nothing at its neutral value
        torch.nn.init.normal_(parameter, std=0.3 if 'bn' not in name else 1.0)
    for name, buffer in neck.named_buffers():
        if name.endswith(('mean', 'var')):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    neck.eval()
    inputs = [torch.randn(2, *shape) for shape in ((4, 5, 6), (6, 3, 3), (8, 2, 2))]
    with torch.no_grad():
        outs = neck(inputs)
    for index in range(2):
        wanted = oracle.neck(as_numpy(neck), image(inputs, index), heads=2, points=2)
        for out, expected in zip(outs, wanted, strict=True):
            np.testing.assert_allclose(out[index], expected, atol=1e-4)
            assert np.abs(expected).max() > 0.1


def test_attentions_keep_their_initialisation():
    """mmengine's Xavier reaches every linear layer; an attention must start from its star."""
    neck = HAHINeck([4, 8, 8], embedding_dim=16, num_heads=4, num_points=3)
    neck.init_weights()
    for attention in (neck.self_attn, neck.multi_att):
        assert not attention.sampling_offsets.weight.any()
        assert not attention.attention_weights.weight.any()
        assert attention.sampling_offsets.bias.abs().max() == 3
    bound = math.sqrt(6 / (4 + 4))
    weight = neck.lateral_convs[0].conv.weight
    assert 0.5 * bound < weight.abs().max() <= bound
    assert neck.level_embed.std() > 0.5


def test_positions_are_mmdets():
    layers = pytest.importorskip('mmdet.models.layers')
    wanted = layers.SinePositionalEncoding(num_feats=6)(torch.zeros(1, 4, 5))
    found = sine_encoding(4, 5, 12, torch.device('cpu'))
    assert torch.allclose(found.T.reshape(12, 4, 5), wanted[0], atol=1e-6)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(in_channels=[4], embedding_dim=8), 'in_channels'),
        (dict(in_channels=[4, 4], embedding_dim=6, num_heads=2), 'embedding_dim'),
        (dict(in_channels=[4, 4], embedding_dim=8, num_heads=3), 'num_heads=3'),
    ],
)
def test_neck_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        HAHINeck(**options)


def test_neck_refuses_missing_levels():
    with pytest.raises(ValueError, match='expected 3 maps, got 2'):
        HAHINeck([4, 4, 4], embedding_dim=8)(pyramid([4, 4]))


# ---- head --------------------------------------------------------------------------------------


def head(upsample_cfg='bilinear', **options):
    torch.manual_seed(0)
    built = DenseDepthHead(CHANNELS, upsample_cfg=upsample_cfg, **options)
    built.init_weights()
    torch.nn.init.constant_(built.conv_depth.bias, 1.0)
    return built


@pytest.mark.parametrize('size', [(8, 12), (7, 10)], ids=['even', 'odd'])
def test_bilinear_head_equals_loops(size):
    built = head()
    levels = levels_of(size=size)
    with torch.no_grad():
        depth = built(levels)
    for index in range(2):
        wanted = oracle.decode(as_numpy(built), image(levels, index))
        np.testing.assert_allclose(depth[index], wanted, rtol=1e-5, atol=1e-5)
    assert depth.std() > 0.01


def test_each_step_is_guided_by_its_skip(reports):
    built = head(dict(type=Reports))
    levels = levels_of()
    built(levels)
    assert [upsampler for upsampler, _, _ in reports] == list(built.upsample_modules)
    for (_, x, guide), coarser, skip in zip(reports, (12, 8), (levels[1], levels[0]), strict=True):
        assert x.shape[1] == coarser
        assert torch.equal(guide[..., : skip.shape[-2], : skip.shape[-1]], skip)


def test_sigmoid_and_direct_regression():
    levels = levels_of()
    direct, sigmoid = head(), head(regression='sigmoid', max_depth=7.0)
    torch.nn.init.constant_(direct.conv_depth.bias, -100.0)
    assert torch.equal(direct(levels), torch.full((2, 1, 7, 10), 1e-3))
    torch.nn.init.zeros_(sigmoid.conv_depth.weight)
    torch.nn.init.constant_(sigmoid.conv_depth.bias, math.log(3))
    assert torch.allclose(sigmoid(levels), torch.tensor(7 * 0.75))


def test_predictions_stay_in_range():
    built = head(max_depth=5.0)
    metas = [dict(img_shape=(14, 20))] * 2
    torch.nn.init.constant_(built.conv_depth.bias, 100.0)
    depth = built.predict(levels_of(), metas, None)
    assert depth.shape == (2, 1, 14, 20)
    assert torch.allclose(depth, torch.full_like(depth, 5.0))


def test_half_precision_features_give_full_precision_depth():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert head('dysample')(levels_of()).dtype == torch.float32


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(regression='exp'), ValueError, "one of .*, got 'exp'"),
        (dict(min_depth=0), ValueError, 'min_depth'),
        (dict(min_depth=2, max_depth=1), ValueError, 'max_depth'),
        (dict(decoder_channels=[4, 8]), ValueError, 'decoder_channels'),
        (dict(upsample_cfg='cubist'), ValueError, 'cubist'),
        (dict(upsample_cfg=dict(type='dysample', teeth=3)), TypeError, 'teeth'),
    ],
)
def test_head_refuses(options, error, message):
    with pytest.raises(error, match=message):
        head(**options)


# ---- the whole model ---------------------------------------------------------------------------


def published_shapes(dim, depths, heads, embedding_dim):
    """Names and shapes of the toolbox's parameters, written down from its configuration."""
    widths = [dim * 2**i for i in range(4)]
    channels = [64, *widths]
    shapes = {}

    def affine(name, *weight):
        shapes[f'{name}.weight'] = weight
        shapes[f'{name}.bias'] = weight[:1]

    affine('backbone.patch_embed.projection', dim, 3, 4, 4)
    affine('backbone.patch_embed.norm', dim)
    shapes['backbone.conv1.weight'] = (64, 3, 7, 7)
    affine('backbone.bn1', 64)
    for i, width in enumerate(widths):
        stage = f'backbone.stages.{i}'
        for j in range(depths[i]):
            block = f'{stage}.blocks.{j}'
            affine(f'{block}.norm1', width)
            shapes[f'{block}.attn.w_msa.relative_position_bias_table'] = (13 * 13, heads[i])
            affine(f'{block}.attn.w_msa.qkv', 3 * width, width)
            affine(f'{block}.attn.w_msa.proj', width, width)
            affine(f'{block}.norm2', width)
            affine(f'{block}.ffn.layers.0.0', 4 * width, width)
            affine(f'{block}.ffn.layers.1', width, 4 * width)
        if i < 3:
            affine(f'{stage}.downsample.norm', 4 * width)
            shapes[f'{stage}.downsample.reduction.weight'] = (2 * width, 4 * width)
        affine(f'backbone.norm{i}', width)

    def block(name, outs, ins, side):
        shapes[f'neck.{name}.conv.weight'] = (outs, ins, side, side)
        affine(f'neck.{name}.bn', outs)

    for i, c in enumerate(channels):
        block(f'lateral_convs.{i}', c, c, 1)
    for i, width in enumerate(widths):
        block(f'trans_proj.{i}', embedding_dim, width, 1)
        block(f'trans_fusion.{i}', width, width + embedding_dim, 3)
    block('conv_proj.0', embedding_dim, 64, 1)
    block('conv_fusion.0', 64, 64 + embedding_dim, 3)
    affine('neck.reference_points', 2, embedding_dim)
    shapes['neck.level_embed'] = (4, embedding_dim)
    for attention in ('self_attn', 'multi_att'):
        taps = 8 * 4 * 8  # heads, levels, points
        affine(f'neck.{attention}.sampling_offsets', 2 * taps, embedding_dim)
        affine(f'neck.{attention}.attention_weights', taps, embedding_dim)
        affine(f'neck.{attention}.value_proj', embedding_dim, embedding_dim)
        affine(f'neck.{attention}.output_proj', embedding_dim, embedding_dim)

    affine('decode_head.conv_list.0.conv', channels[-1], channels[-1], 1, 1)
    for step, (coarser, skip) in enumerate(pairwise(channels[::-1]), start=1):
        affine(f'decode_head.conv_list.{step}.convA.conv', skip, coarser + skip, 3, 3)
        affine(f'decode_head.conv_list.{step}.convB.conv', skip, skip, 3, 3)
    affine('decode_head.conv_depth', 1, 64, 3, 3)
    return shapes


def build(path):
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    return MODELS.build(config.model)


def test_swin_t_has_the_published_parameters():
    """Every name and shape, and the sums, which docs/depth.md derives term by term."""
    shapes = published_shapes(96, [2, 2, 6, 2], [3, 6, 12, 24], embedding_dim=256)
    model = build(SWIN_T)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == shapes
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    stem = 64 * 3 * 7**2 + 2 * 64
    swin_t = 28_288_354 - 769_000 - 2 * 768 + 2 * (96 + 192 + 384 + 768)  # classifier's, norms
    laterals = 64**2 + 96**2 + 192**2 + 384**2 + 768**2 + 2 * 1504
    projections = 256 * (96 + 192 + 384 + 768) + 4 * 2 * 256 + 256 * 64 + 2 * 256
    fusions = 9 * (96 * 352 + 192 * 448 + 384 * 640 + 768 * 1024 + 64 * 320) + 2 * 1504
    attention = 512 * 257 + 256 * 257 + 256 * 257 + 256 * 257
    decoder = 768 * 769
    for coarser, skip in ((768, 384), (384, 192), (192, 96), (96, 64)):
        decoder += (9 * (coarser + skip) + 1) * skip + (9 * skip + 1) * skip
    assert counts['backbone'] == swin_t + stem == 27_530_234
    neck = laterals + projections + fusions + 2 * attention + 4 * 256 + 2 * 257
    assert counts['neck'] == neck == 12_392_834
    assert counts['decode_head'] == decoder + 9 * 64 + 1 == 7_688_961
    assert sum(counts.values()) == 47_612_029


def test_offsets_start_from_bilinear_in_the_model():
    model = build(SMALL)
    model.init_weights()
    upsamplers = [m for m in model.modules() if isinstance(m, DySample)]
    assert len(upsamplers) == 4
    for upsampler in upsamplers:
        assert 5e-4 < upsampler.offset.weight.std() < 2e-3
        assert not upsampler.scope.weight.any()


def samples(model, size=(64, 96)):
    depth = torch.rand(1, *size) * 9 + 0.5
    sample = SegDataSample(
        metainfo=dict(img_shape=size, ori_shape=size), gt_depth_map=PixelData(data=depth)
    )
    data = dict(inputs=[torch.randint(0, 256, (3, *size)).byte()] * 2, data_samples=[sample] * 2)
    return model.data_preprocessor(data, training=False)


def test_every_parameter_gets_a_gradient():
    model = build(SMALL)
    model.init_weights()
    loss = model(**samples(model), mode='loss')
    assert set(loss) == {'decode.loss_depth'}
    loss['decode.loss_depth'].backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []


def test_pixels_without_depth_have_no_influence():
    model = build(SMALL)
    data = samples(model)
    del data['data_samples'][1:]
    data['inputs'] = data['inputs'][:1]
    model.decode_head.loss_decode.eval()  # no warm-up

    truth = data['data_samples'][0].gt_depth_map.data
    truth[..., :20] = 0
    model.eval()
    depth = model(data['inputs'])
    depth = depth[0].detach().double().numpy()
    wanted = oracle.sig_loss(oracle.stretch(depth, truth.shape[-2:]), truth.numpy())
    with torch.no_grad():
        found = model(**data, mode='loss')['decode.loss_depth']
    assert found.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize('dataset', ['nyu', 'kitti'])
def test_the_published_test_averages_a_picture_and_its_mirror_image(dataset):
    """As two plain predictions, of the picture and of its mirror image, turned back."""
    path = next((CONFIGS / 'depthformer').glob(f'*swin-l*_bilinear_*{dataset}*'))
    published = Config.fromfile(path).model.test_cfg
    cropped = dict(nyu=(480, 640), kitti=(352, 1216))[dataset]
    assert tuple(published.crop_size) == tuple(published.stride) == cropped
    size = (96, 160)  # pictures smaller than the crop are taken whole as well
    config = Config.fromfile(SMALL)
    config.model.test_cfg = published
    config.model.data_preprocessor.size = None
    model = MODELS.build(config.model).eval()
    model.init_weights()
    meta = dict(img_shape=size, ori_shape=size)
    picture = torch.randint(0, 256, (3, *size)).byte()

    def predict(picture):
        sample = SegDataSample(metainfo=meta)
        (sample,) = model.test_step(dict(inputs=[picture], data_samples=[sample]))
        return sample.pred_depth_map.data

    with torch.no_grad():
        found = predict(picture)
        assert torch.equal(found, predict(picture.flip(-1)).flip(-1))
        model.test_cfg.update(mode='whole')
        plain, mirrored = predict(picture), predict(picture.flip(-1)).flip(-1)
    assert not torch.allclose(plain, mirrored)
    assert torch.equal(found, (plain + mirrored) / 2)
