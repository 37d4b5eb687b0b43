"""mmseg's runtime with what draws depth."""

_base_ = 'mmseg::_base_/default_runtime.py'

visualizer = dict(type='DepthLocalVisualizer')
