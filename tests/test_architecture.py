"""Imports point downwards, and the operators and modules need PyTorch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmdysample

ROOT = Path(mmdysample.__file__).parent
FRAMEWORKS = ('mmcv', 'mmengine', 'mmdet', 'mmseg', 'fvcore')
FORBIDDEN = {
    'ops': ('mmdysample', *FRAMEWORKS),
    'upsamplers': ('mmdysample', *FRAMEWORKS),
    'det': ('mmdysample.ops', 'mmdysample.seg', 'triton'),
    'seg': ('mmdysample.ops', 'mmdysample.det', 'triton'),
    'depth': ('mmdysample.ops', 'mmdysample.det', 'mmdysample.seg', 'triton'),
}
ALLOWED = {
    'ops': ('mmdysample.ops', 'mmcv.ops'),  # mmcv's CUDA kernel, where it is the faster one
    'upsamplers': ('mmdysample.ops', 'mmdysample.upsamplers'),
}


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names.add(node.module)
    return names


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f'{package}.') for package in packages)


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_imports_point_downwards(layer):
    files = sorted((ROOT / layer).rglob('*.py'))
    assert files
    wrong = {
        f'{path.relative_to(ROOT)}: {name}'
        for path in files
        for name in imported_modules(path)
        if is_within(name, FORBIDDEN[layer]) and not is_within(name, ALLOWED.get(layer, ()))
    }
    assert not wrong


def test_torch_alone_is_enough():
    script = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {FRAMEWORKS!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in {FRAMEWORKS!r} else real(name, *a)
sys.meta_path.insert(0, Absent())
import torch
from mmdysample import DySample, build_upsampler
assert DySample(16)(torch.zeros(1, 16, 2, 3)).shape == (1, 16, 4, 6)
assert build_upsampler('dysample_s_plus', 32, 2)(torch.zeros(1, 32, 2, 3)).shape[-1] == 6
print(sorted(name for name in sys.modules if name.split('.')[0] in {FRAMEWORKS!r}))
"""
    result = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == '[]'
