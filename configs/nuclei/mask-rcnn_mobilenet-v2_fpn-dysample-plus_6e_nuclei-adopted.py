_base_ = './mask-rcnn_mobilenet-v2_fpn-nearest_6e_nuclei-adopted.py'

# Sampling begins where nearest interpolation does, so that nothing is lost before the first step.
upsample_cfg = dict(_delete_=True, type='dysample_plus', init='nearest')
model = dict(neck=dict(upsample_cfg=upsample_cfg))
