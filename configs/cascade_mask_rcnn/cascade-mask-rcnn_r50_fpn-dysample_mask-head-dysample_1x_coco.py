_base_ = './cascade-mask-rcnn_r50_fpn-dysample_1x_coco.py'

# modified: the mask heads' own upsample layer, one head per stage
model = dict(
    roi_head=dict(
        mask_head=dict(
            type='UpsampleFCNMaskHead', upsample_cfg=dict(type='dysample', scale_factor=2)
        )
    )
)
