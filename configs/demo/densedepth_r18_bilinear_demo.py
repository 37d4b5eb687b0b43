"""Depth of scenes with bilinear upsampling, a minute on a CPU core."""

_base_ = [
    '../_base_/models/densedepth_r18_tiny.py',
    '../_base_/datasets/scenes_depth.py',
    '../_base_/schedules/demo.py',
    '../_base_/depth_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(192, 256)),
    decode_head=dict(
        upsample_cfg=dict(type='bilinear'),
        loss_decode=dict(warm_up_iters=15),
    ),
)
log_processor = dict(by_epoch=True)
train_dataloader = dict(_base_.pairs_in_process, batch_size=4)
val_dataloader = _base_.in_process
test_dataloader = _base_.in_process
default_hooks = _base_.demo_hooks
custom_hooks = _base_.demo_custom_hooks
