_base_ = ['./faster-rcnn_r18_fpn_small.py', './detector_tiny.py']

model = dict(**_base_.tiny, roi_head=_base_.tiny_boxes)
