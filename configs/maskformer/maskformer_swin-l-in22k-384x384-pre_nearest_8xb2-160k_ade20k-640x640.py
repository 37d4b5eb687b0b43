_base_ = './maskformer_swin-b-in22k-384x384-pre_nearest_8xb2-160k_ade20k-640x640.py'

# modified: Swin-L instead of Swin-B
checkpoint = _base_.checkpoint_file.replace(
    'swin_small_patch4_window7_224_20220317-7ba6d6dd',
    'swin_large_patch4_window12_384_22k_20220412-6580f57d',
)
model = dict(
    backbone=dict(embed_dims=192, num_heads=[6, 12, 24, 48], init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
