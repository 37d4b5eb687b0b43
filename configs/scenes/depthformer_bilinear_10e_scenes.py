"""Depth of scenes with bilinear upsampling, minutes on a CPU core."""

_base_ = [
    '../_base_/models/depthformer_small.py',
    '../_base_/datasets/scenes_depth.py',
    '../_base_/schedules/scratch_depth_10e.py',
]
model = dict(
    data_preprocessor=dict(size=(192, 256)),
    decode_head=dict(
        upsample_cfg=dict(type='bilinear'),
        loss_decode=dict(warm_up_iters=30),
    ),
)
