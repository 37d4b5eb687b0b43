_base_ = [
    '../_base_/models/depthformer_swin-t.py',
    '../_base_/datasets/nyu_depth.py',
    '../_base_/schedules/depth_38k.py',
    '../_base_/upsamplers/carafe.py',
]
model = dict(decode_head=dict(upsample_cfg={{_base_.upsample_cfg}}))
