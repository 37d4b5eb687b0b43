"""Segmentation heads with a chosen upsampler against mmseg's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.models.decode_heads import MaskFormerHead, SegformerHead, UPerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from networks import Reports, pyramid
from torch.nn.utils import parameters_to_vector

from mmdysample import DySample
from mmdysample.seg import UpsampleMaskFormerHead, UpsampleSegformerHead, UpsampleUPerHead

CHANNELS = [8, 16, 24, 32]
SIZES = {'even': (32, 48), 'odd': (33, 47)}
OPTIONS = dict(
    in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=32, num_classes=5, dropout_ratio=0.0
)
MASKFORMER = 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py'
HEADS = {
    'segformer': (UpsampleSegformerHead, SegformerHead),
    'uper': (UpsampleUPerHead, UPerHead),
    'maskformer': (UpsampleMaskFormerHead, MaskFormerHead),
}


pytestmark = pytest.mark.usefixtures('mmseg_scope')


def options_of(name):
    if name != 'maskformer':
        return OPTIONS
    head = get_config(f'mmseg::{MASKFORMER}').model.decode_head
    head.pop('type')
    head.in_channels = CHANNELS
    head.transformer_decoder.num_layers = 1
    return head


def build(cls, name, **options):
    torch.manual_seed(0)
    head = cls(**options_of(name), **options)
    head.init_weights()
    return head.eval()


def inputs_of(size=(32, 48)):
    """Backbone maps of a batch of two."""
    return pyramid(CHANNELS, size)


def run(head, inputs):
    """All outputs of a head, as one list of tensors."""
    if isinstance(head, MaskFormerHead):
        size = [4 * side for side in inputs[0].shape[-2:]]
        sample = SegDataSample(metainfo=dict(batch_input_shape=size, img_shape=size))
        scores, masks = head(inputs, [sample] * 2)
        return [scores, masks]
    return [head(inputs)]


def load_stock(ours, stock):
    """Load the stock weights; what is missing must be the upsamplers', and nothing may be left."""
    missing, unexpected = ours.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected
    assert all('upsample_modules' in key for key in missing)
    return missing


@pytest.mark.smoke
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ('name', 'upsample_cfg', 'stock_options'),
    [
        ('segformer', dict(type='bilinear'), {}),
        ('segformer', dict(type='bilinear'), dict(align_corners=True)),
        ('segformer', dict(mode='nearest'), dict(interpolate_mode='nearest', align_corners=None)),
        ('uper', 'bilinear', {}),
        ('uper', dict(type='bilinear'), dict(align_corners=True)),
        ('maskformer', 'nearest', {}),
    ],
)
def test_interpolation_equals_the_stock_head(name, upsample_cfg, stock_options, size):
    ours, stock = HEADS[name]
    stock = build(stock, name, **stock_options)
    shared = {key: value for key, value in stock_options.items() if key != 'interpolate_mode'}
    ours = build(ours, name, upsample_cfg=upsample_cfg, **shared)
    assert not load_stock(ours, stock)
    inputs = inputs_of(size)
    for actual, expected in zip(run(ours, inputs), run(stock, inputs), strict=True):
        assert torch.equal(actual, expected)


def test_segformer_interpolate_mode_keeps_its_meaning():
    stock = build(SegformerHead, 'segformer', interpolate_mode='bicubic')
    ours = build(UpsampleSegformerHead, 'segformer', interpolate_mode='bicubic')
    load_stock(ours, stock)
    inputs = inputs_of()
    assert torch.equal(ours(inputs), stock(inputs))
    with pytest.raises(ValueError, match='interpolate_mode'):
        build(UpsampleSegformerHead, 'segformer', interpolate_mode='bicubic', upsample_cfg='carafe')


def published_segformer_head(inputs, weights):
    """SegFormer's decoder as its paper writes it (arXiv 2105.15203, Eq. 4), in float64.

    A linear layer on each level, bilinear resizes to the finest, one linear layer with batch norm
    and ReLU on their concatenation, a linear classifier. The levels are concatenated coarsest
    first there and finest first here.
    """
    target = inputs[0].shape[-2:]
    levels = []
    for i, x in enumerate(inputs):
        weight, bias = weights[f'convs.{i}.weight'].flatten(1), weights[f'convs.{i}.bias']
        tokens = x.flatten(2).transpose(1, 2) @ weight.T + bias
        level = tokens.transpose(1, 2).unflatten(2, x.shape[-2:])
        levels.insert(0, F.interpolate(level, target, mode='bilinear', align_corners=False))
    fuse = weights['fusion_conv.conv.weight'].flatten(1)
    fuse = torch.cat(fuse.chunk(len(inputs), dim=1)[::-1], dim=1)
    fused = torch.einsum('oc,nchw->nohw', fuse, torch.cat(levels, dim=1))
    mean, var, gamma, beta = (
        weights[f'fusion_conv.bn.{name}'][:, None, None]
        for name in ('running_mean', 'running_var', 'weight', 'bias')
    )
    fused = (gamma * (fused - mean) / (var + 1e-5).sqrt() + beta).relu()
    scores = torch.einsum('oc,nchw->nohw', weights['conv_seg.weight'].flatten(1), fused)
    return scores + weights['conv_seg.bias'][:, None, None]


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_linear_projection_is_the_published_segformer_head(size):
    """At the widths of SegFormer-B1; the oracle knows nothing of mmseg."""
    channels = [64, 128, 320, 512]
    options = dict(OPTIONS, in_channels=channels, channels=256, num_classes=150)
    options['norm_cfg'] = dict(type='BN')
    head = UpsampleSegformerHead(projection='linear', upsample_cfg='bilinear', **options)
    head.init_weights()
    norm = head.fusion_conv.bn
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    head = head.double().eval()
    inputs = [
        torch.randn(2, c, *x.shape[-2:], dtype=torch.float64)
        for c, x in zip(channels, inputs_of(size), strict=True)
    ]
    expected = published_segformer_head(inputs, head.state_dict())
    torch.testing.assert_close(head(inputs), expected, rtol=0, atol=1e-6)
    stock = UpsampleSegformerHead(upsample_cfg='bilinear', **options).double().eval()
    stock.load_state_dict(head.state_dict(), strict=False)
    assert not torch.allclose(stock(inputs), expected, atol=1e-3)


def test_linear_projection_starts_as_a_linear_layer():
    """``nn.Linear`` draws weights and biases within ``1 / sqrt(fan-in)``."""
    head = build(UpsampleSegformerHead, 'segformer', projection='linear', init_cfg=None)
    for conv, channels in zip(head.convs, CHANNELS, strict=True):
        for parameter in conv.parameters():
            assert 0 < parameter.abs().max() <= channels**-0.5
    with pytest.raises(ValueError, match=r"projection must be one of .*, got 'mlp'"):
        build(UpsampleSegformerHead, 'segformer', projection='mlp')


def test_segformer_cascade_order_and_guides(reports):
    head = build(UpsampleSegformerHead, 'segformer', upsample_cfg=dict(type=Reports))
    inputs = inputs_of((33, 47))
    head(inputs)
    projected = [conv(x) for conv, x in zip(head.convs, inputs, strict=True)]
    starts_and_targets = [(3, 2), (None, 1), (None, 0), (2, 1), (None, 0), (1, 0)]
    assert [upsampler for upsampler, _, _ in reports] == list(head.upsample_modules)
    assert len({id(upsampler) for upsampler in head.upsample_modules}) == 6
    for (_, x, guide), (start, target) in zip(reports, starts_and_targets, strict=True):
        if start is not None:
            assert torch.equal(x, projected[start])
        height, width = projected[target].shape[-2:]
        # Level sizes are odd, so the guide comes extended to the whole multiple.
        assert torch.equal(guide[..., :height, :width], projected[target])
        assert guide.shape[-2:] == (2 * x.shape[-2], 2 * x.shape[-1])


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('name', ['freqfusion', 'dysample', 'bilinear'])
def test_segformer_stepwise_joins_one_level_after_the_other(name, size):
    """Written out; FreqFusion enhances its guides, the others leave them as they are."""
    head = build(UpsampleSegformerHead, 'segformer', upsample_cfg=name, stepwise=True).double()
    inputs = [x.double() for x in inputs_of(size)]
    x0, x1, x2, x3 = (conv(x) for conv, x in zip(head.convs, inputs, strict=True))

    def raised(step, x, guide):
        """Both results for a guide that is extended to the whole multiple, and cut."""
        height, width = guide.shape[-2:]
        missing = (0, 2 * x.shape[-1] - width, 0, 2 * x.shape[-2] - height)
        up, whole = head.upsample_modules[step], F.pad(guide, missing, mode='replicate')
        if name == 'bilinear':
            return F.interpolate(x, (height, width), mode='bilinear'), guide
        both = up.fuse(x, whole) if name == 'freqfusion' else (up(x), whole)
        return [result[..., :height, :width] for result in both]

    x3_up, x2 = raised(0, x3, x2)
    x23_up, x1 = raised(1, torch.cat((x2, x3_up), 1), x1)
    x123_up, x0 = raised(2, torch.cat((x1, x23_up), 1), x0)
    expected = head.cls_seg(head.fusion_conv(torch.cat((x0, x123_up), 1)))
    torch.testing.assert_close(head(inputs), expected, rtol=0, atol=1e-9)
    assert [up.in_channels for up in head.upsample_modules] == [32, 64, 96]


def test_segformer_stepwise_trains_and_has_no_cascade():
    options = dict(upsample_cfg='freqfusion', stepwise=True)
    head = build(UpsampleSegformerHead, 'segformer', **options).train()
    head(inputs_of((33, 47))).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match='stepwise=True has no choice of cascade, got cascade=Fal'):
        build(UpsampleSegformerHead, 'segformer', cascade=False, **options)


def test_segformer_cascade_is_an_option():
    inputs = inputs_of()
    outs = {}
    for cascade in (None, False, True):
        head = build(UpsampleSegformerHead, 'segformer', upsample_cfg='bilinear', cascade=cascade)
        outs[cascade] = head(inputs)
        assert len(head.upsample_modules) == (6 if cascade else 3)
    assert torch.equal(outs[None], outs[False])
    assert not torch.allclose(outs[None], outs[True])
    learned = build(UpsampleSegformerHead, 'segformer', cascade=False)
    assert [up.scale_factor for up in learned.upsample_modules] == [8, 4, 2]
    assert learned(inputs).shape == outs[None].shape


def test_uper_top_down_order_and_guides(reports):
    head = build(UpsampleUPerHead, 'uper', upsample_cfg=dict(type=Reports))
    inputs = inputs_of()
    head(inputs)
    assert [upsampler for upsampler, _, _ in reports] == list(head.upsample_modules)[::-1]
    laterals = [conv(x) for conv, x in zip(head.lateral_convs, inputs[:-1], strict=True)]
    for (_, _, guide), lateral in zip(reports, laterals[::-1], strict=True):
        assert torch.equal(guide, lateral)


def test_uper_fusion_resize_can_be_replaced(reports):
    head = build(UpsampleUPerHead, 'uper', fusion_upsample_cfg=dict(type=Reports))
    head(inputs_of())
    assert len(head.upsample_modules) == 3
    assert [upsampler for upsampler, _, _ in reports] == list(head.fusion_upsample_modules)
    assert len(reports) == 6


def test_maskformer_guides_are_the_laterals(reports):
    head = build(UpsampleMaskFormerHead, 'maskformer', upsample_cfg=dict(type=Reports))
    inputs = inputs_of((64, 96))
    run(head, inputs)
    decoder = head.pixel_decoder
    assert [upsampler for upsampler, _, _ in reports] == list(decoder.upsample_modules)[::-1]
    for (_, _, guide), level in zip(reports, (2, 1, 0), strict=True):
        assert torch.equal(guide, decoder.lateral_convs[level](inputs[level]))


def test_maskformer_keeps_the_projection_of_the_memory():
    """The stock head makes it for its own decoder class only."""
    stock = build(MaskFormerHead, 'maskformer')
    ours = build(UpsampleMaskFormerHead, 'maskformer')
    assert isinstance(stock.decoder_input_proj, torch.nn.Conv2d)
    assert ours.decoder_input_proj.weight.shape == stock.decoder_input_proj.weight.shape


def test_maskformer_refuses_other_decoders():
    options = options_of('maskformer')
    options.pixel_decoder = dict(
        type='mmdet.TransformerEncoderPixelDecoder',
        encoder=dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8), ffn_cfg=dict(embed_dims=256)
            ),
        ),
    )
    with pytest.raises(ValueError, match='pixel_decoder must be of type PixelDecoder'):
        UpsampleMaskFormerHead(**options)


@pytest.mark.parametrize('name', HEADS)
def test_upsamplers_keep_their_own_initialisation(name):
    """The head's scheme never reaches them, and the default is DySample."""
    head = build(HEADS[name][0], name)
    upsamplers = [m for m in head.modules() if isinstance(m, DySample)]
    assert len(upsamplers) == (6 if name == 'segformer' else 3)
    for upsampler in upsamplers:
        assert upsampler.offset.weight.std().item() == pytest.approx(0.001, rel=0.3)
        assert not upsampler.offset.bias.any()


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('upsampler', ['dysample_plus', 'fade'])
def test_every_parameter_gets_a_gradient(name, upsampler):
    """Also at odd sizes; an unused parameter would stop distributed training."""
    head = build(HEADS[name][0], name, upsample_cfg=upsampler).train()
    outs = run(head, inputs_of((33, 47)))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    idle = [key for key, parameter in head.named_parameters() if parameter.grad is None]
    assert not idle


@pytest.mark.parametrize(
    'config',
    [
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        MASKFORMER,
    ],
)
@pytest.mark.parametrize('upsampler', ['dysample_s_plus', 'carafe'])
def test_published_state_dicts_load(config, upsampler):
    """Whole models of mmseg's configs; only the upsamplers are missing."""
    stock = get_config(f'mmseg::{config}').model
    stock.backbone.init_cfg = stock.pretrained = None
    ours = get_config(f'mmseg::{config}').model
    ours.backbone.init_cfg = ours.pretrained = None
    ours.decode_head.type = f'Upsample{stock.decode_head.type}'
    ours.decode_head.upsample_cfg = dict(type=upsampler)
    ours, stock = MODELS.build(ours), MODELS.build(stock)
    own = {key for key in ours.state_dict() if 'upsample_modules' in key}
    assert own
    assert set(load_stock(ours, stock)) == own


@pytest.mark.parametrize('upsampler', ['fade', 'sapa_b', 'indexnet', 'dysample'])
def test_trains_on_an_odd_image(upsampler):
    """An image of 513 x 769 leaves levels of 129 x 193, 65 x 97, 33 x 49 and 17 x 25."""
    config = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(513, 769)),
            backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8),
            decode_head=dict(
                OPTIONS,
                type='UpsampleSegformerHead',
                in_channels=[8, 16, 32, 64],
                upsample_cfg=upsampler,
                norm_cfg=dict(type='BN'),
            ),
        )
    )
    label = PixelData(data=torch.randint(0, 5, (1, 513, 769)))
    data = dict(
        inputs=[torch.randint(0, 256, (3, 513, 769), dtype=torch.uint8)],
        data_samples=[SegDataSample(gt_sem_seg=label)],
    )
    learned = config.decode_head.upsample_modules
    before = parameters_to_vector(learned.parameters()).detach()
    optim_wrapper = OptimWrapper(torch.optim.SGD(config.parameters(), lr=0.1))
    logged = config.train_step(data, optim_wrapper)
    after = parameters_to_vector(learned.parameters())
    assert logged['loss'].isfinite() and after.isfinite().all()
    assert not torch.equal(before, after)
