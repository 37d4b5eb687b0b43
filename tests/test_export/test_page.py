"""The example of the page "Ship it" runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for package in ('mmdet', 'onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package)
command = pytest.importorskip('mmdysample.export.command')

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'ship_it.md'


def test_the_example_draws_boxes(tiny, tmp_path, monkeypatch):
    config, checkpoint = tiny('faster-rcnn_r18_fpn_tiny', 'nearest')
    monkeypatch.chdir(tmp_path)
    assert command.main([str(config), str(checkpoint), '--out', 'exported', '--dynamic']) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save('picture.png')
    (code,) = re.findall(r'<!-- example -->\n```python\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
    exec(compile(code, str(PAGE), 'exec'), {'__name__': 'example'})
    drawn = np.asarray(Image.open('boxes.png'))
    assert drawn.shape == pixels.shape and (drawn != pixels).any()
