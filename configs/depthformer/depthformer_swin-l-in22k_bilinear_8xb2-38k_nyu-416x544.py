_base_ = [
    '../_base_/models/depthformer_swin-l.py',
    '../_base_/datasets/nyu_depth.py',
    '../_base_/schedules/depth_38k.py',
]
model = dict(decode_head=dict(upsample_cfg=dict(type='bilinear')))
train_dataloader = dict(batch_size=2, num_workers=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
