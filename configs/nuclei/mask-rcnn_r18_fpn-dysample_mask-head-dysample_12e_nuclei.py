_base_ = './mask-rcnn_r18_fpn-dysample_12e_nuclei.py'

# modified: the mask head's own upsample layer
model = dict(
    roi_head=dict(mask_head=dict(upsample_cfg=dict(_delete_=True, type='dysample', scale_factor=2)))
)
