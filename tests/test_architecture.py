"""Imports point downwards, and the operators and modules need PyTorch alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from scripts import run_script

import mmdysample

ROOT = Path(mmdysample.__file__).parent
FRAMEWORKS = ('mmcv', 'mmengine', 'mmdet', 'mmseg', 'fvcore')
#: Each folder and the folders that it may import, from the lowest to the highest.
MAY_IMPORT = {
    'ops': (),
    'upsamplers': ('ops',),
    'hosts': ('upsamplers',),
    'det': ('ops', 'upsamplers', 'hosts'),
    'seg': ('upsamplers', 'hosts'),
    'depth': ('upsamplers', 'hosts'),
    'superres': ('ops', 'upsamplers'),
    'scenes': (),
    'engine': ('upsamplers',),
    'sampling': ('upsamplers', 'engine'),
    'reproduce': ('upsamplers', 'engine', 'depth'),
    'costs': ('ops', 'upsamplers', 'engine', 'reproduce'),
    'export': ('ops', 'upsamplers', 'engine', 'costs'),
}
#: Packages that only some folders may import, and the one exception.
ONLY_IN = {
    'triton': ('ops',),
    'numba': ('ops', 'scenes'),
    'mmdet': ('hosts', 'det', 'seg', 'scenes', 'engine', 'reproduce', 'costs', 'export'),
    'mmseg': ('seg', 'depth', 'scenes', 'engine', 'reproduce', 'costs', 'export'),
    'mmengine': tuple(set(MAY_IMPORT) - {'ops', 'upsamplers'}),
    'mmcv': tuple(set(MAY_IMPORT) - {'ops', 'upsamplers'}),
    'fvcore': ('costs', 'reproduce'),
}
EXCEPTIONS = {('ops', 'mmcv.ops')}  # MMCV's CUDA kernel, where it is the faster one


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


def imports_of(folder: str) -> set[tuple[str, str]]:
    files = sorted((ROOT / folder).rglob('*.py'))
    assert files
    return {
        (str(path.relative_to(ROOT)), name) for path in files for name in imported_modules(path)
    }


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert folders == set(MAY_IMPORT)
    lower: set[str] = set()
    for folder, others in MAY_IMPORT.items():
        assert set(others) <= lower, f'{folder} may only import folders named before it'
        lower.add(folder)


@pytest.mark.parametrize('folder', MAY_IMPORT)
def test_imports_point_downwards(folder):
    allowed = tuple(f'mmdysample.{name}' for name in (*MAY_IMPORT[folder], folder, 'version'))
    ours = {item for item in imports_of(folder) if item[1].partition('.')[0] == 'mmdysample'}
    assert not {item for item in ours if not is_within(item[1], allowed)}


@pytest.mark.parametrize('package', ONLY_IN)
def test_packages_are_imported_where_they_belong(package):
    found = {
        (folder, name)
        for folder in MAY_IMPORT
        for _, name in imports_of(folder)
        if is_within(name, (package,)) and folder not in ONLY_IN[package]
    }
    assert found <= EXCEPTIONS


def test_torch_alone_is_enough():
    result = run_script(
        f"""
import torch
from mmdysample import DySample, build_upsampler
assert DySample(16)(torch.zeros(1, 16, 2, 3)).shape == (1, 16, 4, 6)
assert build_upsampler('dysample_s_plus', 32, 2)(torch.zeros(1, 32, 2, 3)).shape[-1] == 6
print(sorted(name for name in sys.modules if name.split('.')[0] in {FRAMEWORKS!r}))
""",
        without=FRAMEWORKS,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == '[]'
