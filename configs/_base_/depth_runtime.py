"""mmseg's runtime with what draws depth and what averages it over mirrored pictures."""

_base_ = 'mmseg::_base_/default_runtime.py'

visualizer = dict(type='DepthLocalVisualizer')
tta_model = dict(type='DepthTTAModel')
