_base_ = '../mask_rcnn/mask-rcnn_r50_fpn-dysample_1x_coco.py'

# modified: the mask head's own upsample layer
model = dict(
    roi_head=dict(
        mask_head=dict(
            type='UpsampleFCNMaskHead', upsample_cfg=dict(type='dysample', scale_factor=2)
        )
    )
)
