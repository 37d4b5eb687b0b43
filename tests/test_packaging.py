"""The package as others get it: source archive, wheel, and an install without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ['setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'CITATION.cff']
PARTS += ['CHANGELOG.md', 'model-index.yml', 'configs', 'tools', 'tests', 'mmdysample']

pytestmark = pytest.mark.smoke


def run(*command, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Call a hook of the build backend, as pip does, and return what it made."""
    target.mkdir(exist_ok=True)
    hook = f'from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})'
    run('-c', hook, cwd=source)
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the sources, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp('source')
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> Path:
    """A wheel that was built from the source archive, not from the checkout."""
    folder = tmp_path_factory.mktemp('built')
    archive = build('sdist', source, folder / 'sdist')
    with tarfile.open(archive) as file:
        file.extractall(folder, filter='data')
    return build('wheel', folder / archive.name.removesuffix('.tar.gz'), folder / 'wheel')


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp('installed')
    run('-m', 'pip', 'install', '--no-deps', '--quiet', '--target', folder, wheel, cwd=folder)
    return folder


def files_below(folder: Path, *skipped: str) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and not {*skipped, '__pycache__'} & set(path.relative_to(folder).parts)
    }


def test_wheel_holds_the_package_and_mim_and_no_more(wheel):
    expected = {f'mmdysample/{name}' for name in files_below(ROOT / 'mmdysample', '.mim')}
    for folder in ('configs', 'tools'):
        expected |= {f'mmdysample/.mim/{folder}/{name}' for name in files_below(ROOT / folder)}
    expected.add('mmdysample/.mim/model-index.yml')
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert names == expected


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = archive.read(name).decode()
    from mmdysample import __version__

    assert f'\nVersion: {__version__}\n' in metadata
    for extra in ('onedl', 'upstream', 'cpu', 'tests', 'docs', 'export', 'mim', 'recipes'):
        assert f'\nProvides-Extra: {extra}\n' in metadata
    required = [line for line in metadata.splitlines() if line.startswith('Requires-Dist')]
    assert [line for line in required if 'extra ==' not in line] == ['Requires-Dist: torch>=2.6']


def git(folder: Path, *command: str) -> str:
    identity = ['-c', 'user.name=Somebody', '-c', 'user.email=somebody@example.org']
    done = subprocess.run(
        ['git', *identity, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_revision_is_that_of_the_package_alone(source, tmp_path):
    """Not of a repository in which the package happens to be installed."""
    from mmdysample.engine.provenance import revision

    site = tmp_path / 'env' / 'site-packages'
    (site / 'mmdysample').mkdir(parents=True)
    shutil.copy(source / 'mmdysample' / '__init__.py', site / 'mmdysample')
    git(tmp_path, 'init', '--quiet')
    (tmp_path / 'mine.py').touch()
    git(tmp_path, 'add', 'mine.py')
    git(tmp_path, 'commit', '--quiet', '-m', 'mine')
    assert revision(site) is None
    git(tmp_path, 'add', '--force', 'env')
    git(tmp_path, 'commit', '--quiet', '-m', 'an environment')
    assert revision(site) is None
    (site / 'mmdysample' / '.mim').mkdir()
    (site / 'mmdysample' / '.mim' / 'revision').write_text('abc\n')
    assert revision(site) == 'abc'


def test_a_wheel_of_a_checkout_notes_its_revision(source, tmp_path):
    checkout = tmp_path / 'checkout'
    shutil.copytree(source, checkout, ignore=shutil.ignore_patterns('.mim'))
    git(checkout, 'init', '--quiet')
    git(checkout, 'add', '.')
    git(checkout, 'commit', '--quiet', '-m', 'first')
    wheel = build('wheel', checkout, tmp_path / 'wheel')
    with zipfile.ZipFile(wheel) as archive:
        noted = archive.read('mmdysample/.mim/revision').decode().strip()
    assert noted.removesuffix('-dirty') == git(checkout, 'rev-parse', 'HEAD')


def test_setup_does_not_import_torch(source):
    script = 'import sys, runpy; sys.argv = ["setup.py", "--version"]\n'
    script += 'runpy.run_path("setup.py", run_name="__main__"); assert "torch" not in sys.modules'
    assert run('-c', script, cwd=source).strip()


def test_editable_install_links_mim_to_the_checkout(source, tmp_path):
    build('editable', source, tmp_path / 'editable')
    mim = source / 'mmdysample' / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).is_symlink()
        assert (mim / name).resolve() == source.resolve() / name


def test_wheel_works_alone_outside_the_checkout(installed, tmp_path):
    """Every type, forward and backward, where PyTorch and what it requires are all there is."""
    packages, waiting = tmp_path / 'packages', ['torch']
    packages.mkdir()
    while waiting:
        try:
            found = metadata.distribution(waiting.pop())
        except metadata.PackageNotFoundError:
            continue  # required on other platforms
        for name in {file.parts[0] for file in found.files or () if file.parts[0] != '..'}:
            if not (packages / name).exists():
                (packages / name).symlink_to(found.locate_file(name))
        needs = [line for line in found.requires or () if 'extra ==' not in line]
        waiting += [re.match(r'[\w.-]+', line)[0] for line in needs]
    script = """
import sys
import torch, mmdysample
assert mmdysample.__file__.startswith(sys.argv[1]), mmdysample.__file__
x, guide = torch.randn(1, 32, 4, 5, requires_grad=True), torch.randn(1, 32, 8, 10)
for name in mmdysample.upsampler_names():
    out = mmdysample.build_upsampler(name, 32)(x, guide=guide)
    assert out.shape == guide.shape
    out.sum().backward()
assert not {'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'numba'} & set(sys.modules)
"""
    path = os.pathsep.join([str(installed), str(packages)])
    run('-S', '-c', script, installed, cwd=tmp_path, PYTHONPATH=path)


def test_three_lines_of_config_train_outside_the_checkout(installed, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'config.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        "custom_imports = dict(imports=['mmdysample'])\n"
        "model = dict(neck=dict(type='UpsampleFPN', upsample_cfg=dict(type='dysample')))\n"
    )
    (tmp_path / 'step.py').write_text("""
import sys, torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample

cfg = Config.fromfile('config.py')
import mmdysample
assert mmdysample.__file__.startswith(sys.argv[1]), mmdysample.__file__
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model)
sample = DetDataSample(metainfo=dict(img_shape=(64, 64), scale_factor=(1, 1)))
sample.gt_instances = InstanceData(
    bboxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]), labels=torch.tensor([0]))
data = model.data_preprocessor(
    dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)], data_samples=[sample]), True)
losses = model(**data, mode='loss')
loss, _ = model.parse_losses(losses)
before = model.neck.upsample_modules[0].offset.weight.detach().clone()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss.backward()
optimizer.step()
assert not torch.equal(before, model.neck.upsample_modules[0].offset.weight)
""")
    run('step.py', installed, cwd=tmp_path, PYTHONPATH=str(installed))


@pytest.mark.parametrize(
    ('package', 'base'),
    [
        ('mmdet', 'faster_rcnn/faster-rcnn_r50_fpn-dysample_1x_coco.py'),
        ('mmseg', 'segformer/segformer_mit-b1_dysample_8xb2-160k_ade20k-512x512.py'),
    ],
)
def test_configs_of_an_installed_wheel_are_bases(installed, tmp_path, package, base):
    pytest.importorskip(package)
    (tmp_path / 'config.py').write_text(f"_base_ = 'mmdysample::{base}'\nwork_dir = 'mine'\n")
    script = """
import sys, mmdysample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
cfg = Config.fromfile('config.py')
assert cfg.work_dir == 'mine'
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model)
print(sum(type(module).__name__ == 'DySample' for module in model.modules()))
"""
    printed = run('-c', script, cwd=tmp_path, PYTHONPATH=str(installed))
    assert int(printed.split()[-1]) > 0
