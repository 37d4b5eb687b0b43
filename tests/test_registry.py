"""Importing the package registers everything, imports nothing heavy and changes nothing else."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from scripts import run_script

from mmdysample.registry import CLASSES, MMCV_UPSAMPLERS

pytestmark = pytest.mark.smoke

NAMES = [
    (package, kind, module, name)
    for package, kinds in CLASSES.items()
    for kind, modules in kinds.items()
    for module, names in modules.items()
    for name in names
]


def test_import_is_silent_light_and_without_effect_on_torch():
    done = run_script("""
import sys, torch
before = torch.serialization.get_safe_globals()
import mmdysample
assert torch.serialization.get_safe_globals() == before
print(sorted({'mmdet.models', 'mmseg.models', 'mmcv.ops', 'mmcv.cnn', 'mmdysample.det',
              'mmdysample.seg', 'mmdysample.engine', 'numba', 'pandas', 'torch._dynamo'}
             & set(sys.modules)))
""")
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ('[]\n', '')


@pytest.mark.parametrize(('package', 'kind', 'module', 'name'), NAMES)
def test_a_registered_name_builds_its_class(package, kind, module, name, monkeypatch):
    pytest.importorskip(package)
    cls = getattr(import_module(module), name)
    monkeypatch.setattr(cls, '__init__', lambda self, *args, **kwargs: None)
    arguments = dict(name=f'test of {name}') if kind == 'VISUALIZERS' else {}
    found = getattr(import_module(f'{package}.registry'), kind).build(dict(arguments, type=name))
    assert type(found) is cls
    if kind == 'VISUALIZERS':  # hooks find it by this
        assert cls.get_current_instance() is found


def test_every_public_class_of_the_frameworks_is_registered():
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    registered = {getattr(import_module(module), name) for _, _, module, name in NAMES}
    for package in ('det', 'seg', 'depth', 'scenes.det', 'scenes.seg', 'superres'):
        module = import_module(f'mmdysample.{package}')
        public = getattr(module, '__all__', None) or [
            name
            for name, cls in inspect.getmembers(module, inspect.isclass)
            if cls.__module__ == module.__name__
        ]
        assert public
        assert {getattr(module, name) for name in public} <= registered


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_names_resolve_from_every_scope(scope):
    for package in ('mmdet', 'mmseg'):
        pytest.importorskip(package)
    done = run_script(f"""
from mmengine.config import Config
cfg = Config.fromstring('''
custom_imports = dict(imports=['mmdysample'])
neck = dict(type='UpsampleFPN', in_channels=[8, 8], out_channels=8, num_outs=2,
            upsample_cfg=dict(type='dysample'))
''', '.py')
from mmengine.registry import MODELS, init_default_scope
init_default_scope({scope!r})
from mmcv.cnn import build_upsample_layer
assert type(build_upsample_layer(dict(type='dysample_s', in_channels=8))).__name__ == 'DySample'
other = 'mmseg' if {scope!r} == 'mmdet' else 'mmdet'
names = ['UpsampleFPN', 'mmdet.UpsampleFPN', 'mmseg.UpsampleFPN']
print(*(type(MODELS.build(dict(cfg.neck, type=name))).__module__ for name in names))
""")
    assert done.returncode == 0, done.stderr
    expected = [f'mmdysample.{folder}.fpn' for folder in (scope[2:], 'det', 'seg')]
    assert done.stdout.splitlines()[-1].split() == expected


def test_mmcv_keeps_its_names():
    pytest.importorskip('mmcv.ops')
    done = run_script("""
import sys
from mmengine.registry import MODELS
import mmcv.cnn, mmcv.ops
theirs = set(MODELS.module_dict)
import mmdysample
assert mmdysample.registry.MMCV_UPSAMPLERS
print(*sorted(theirs & set(mmdysample.upsampler_names())))
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(MMCV_UPSAMPLERS)
    done = run_script('import mmdysample, mmcv.cnn, mmcv.ops')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    'failure',
    [
        'assert False, "MMCV==9 is used but incompatible"',
        'raise OSError("libcudart.so: cannot open shared object file")',
    ],
)
def test_a_package_that_cannot_be_imported_gives_a_warning_with_the_reason(tmp_path, failure):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text(failure + '\n')
    done = run_script('import mmdysample; print(mmdysample.DySample(8).groups)', str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == '4\n'
    assert 'mmdysample registers nothing with mmdet: ' in done.stderr
    assert failure.split('"')[1] in done.stderr


@pytest.mark.parametrize('absent', ['mmdet', 'mmcv', 'mmcv.ops'])
def test_whatever_is_absent_the_rest_registers_in_silence(absent):
    """Without ``mmcv.ops``: mmcv-lite, or an mmcv that was built for another torch."""
    pytest.importorskip('mmengine')
    script = """
import mmdysample
from mmengine.registry import HOOKS, MODELS
HOOKS.build(dict(type='EpochSeedHook'))
MODELS.build(dict(type='dysample', in_channels=8))
"""
    done = run_script(script, without=[absent])
    assert done.returncode == 0, done.stderr
    if absent == 'mmcv':  # which upstream's mmdet and mmseg import at once
        assert all('No module named' in line for line in done.stderr.splitlines()[::2])
    else:
        assert done.stderr == ''
