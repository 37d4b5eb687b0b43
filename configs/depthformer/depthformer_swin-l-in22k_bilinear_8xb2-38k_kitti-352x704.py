_base_ = [
    '../_base_/models/depthformer_swin-l.py',
    '../_base_/datasets/kitti_depth.py',
    '../_base_/schedules/depth_38k.py',
]
model = dict(
    data_preprocessor=dict(size=(352, 704)),
    decode_head=dict(max_depth=80, upsample_cfg=dict(type='bilinear')),
    test_cfg=dict(crop_size=(352, 1216), stride=(352, 1216)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
