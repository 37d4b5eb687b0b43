_base_ = './segformer_mit-b1_bilinear_8xb2-160k_ade20k-512x512.py'

# modified: each step upsamples all coarser levels together, as published
model = dict(decode_head=dict(upsample_cfg=dict(type='freqfusion'), stepwise=True))
