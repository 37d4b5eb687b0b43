_base_ = [
    'mmseg::maskformer/maskformer_swin-s_upernet_8xb2-160k_ade20k-512x512.py',
    '../_base_/evaluators/boundary_iou.py',
]
custom_imports = dict(imports=['mmdysample'])

# modified: Swin-B with window 12, pretrained on ImageNet-22K, instead of Swin-S
checkpoint = _base_.checkpoint_file.replace(
    'swin_small_patch4_window7_224_20220317-7ba6d6dd',
    'swin_base_patch4_window12_384_22k_20220317-e5c09f74',
)
crop_size = (640, 640)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=128,
        num_heads=[4, 8, 16, 32],
        window_size=12,
        init_cfg=dict(checkpoint=checkpoint),
    ),
    decode_head=dict(
        type='UpsampleMaskFormerHead',
        in_channels=[128, 256, 512, 1024],
        upsample_cfg=dict(type='nearest'),
    ),
)

# modified: crops of 640 x 640, and no limit to what one class may fill of them
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(
        type='RandomChoiceResize',
        scales=[64 * x for x in range(5, 21)],
        resize_type='ResizeShortestEdge',
        max_size=2560,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=1.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2560, 640), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# modified: no weight decay on any norm; mmseg's config exempts those of the backbone only
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))

# modified: the power of the published schedule
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=1500, end=160000, by_epoch=False),
]
val_evaluator = _base_.evaluator
test_evaluator = _base_.evaluator
