"""Road scenes (CamVid) with ImageNet weights: a SegFormer head on a MobileNetV2, partly frozen.

``tools/pretrained.py mobilenet_v2`` writes the weights. The layers up to stride 8 are frozen, and
so are all statistics of the backbone: a step takes half a second of one CPU core.
"""

_base_ = './segformer_r18_bilinear_12e_camvid.py'

# weights of classes as in ENet (arXiv 1606.02147): 1 / ln(1.02 + p), p being a class's
# share of the training pixels, divided by their mean over these pixels. Bicyclists are 0.3 % of
# them, and without weights it is chance whether a training of this length learns them at all.
class_weight = [0.80, 0.61, 4.80, 0.48, 2.21, 1.25, 4.50, 4.57, 1.83, 5.43, 6.27]

# modified: the backbone, a narrower head, and the weights of classes
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        frozen_stages=3,
        norm_eval=True,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(
            type='Pretrained', checkpoint='data/pretrained/mobilenet_v2.pth', prefix='mmseg'
        ),
    ),
    decode_head=dict(
        in_channels=[24, 32, 96, 320],
        channels=64,
        loss_decode=dict(class_weight=class_weight),
    ),
)

# modified: 24 epochs, a tenth of the learning rate for the backbone, and a cosine: its last epochs
# change little, so validations tell whether the training has settled
max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=12, dynamic_intervals=[(19, 2)])
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

# modified: a resumed training ends with the numbers of an uninterrupted one
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
custom_hooks = [dict(type='EpochSeedHook')]
