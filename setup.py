"""Packaging of mmdysample. Imports neither torch nor the package itself."""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: What OpenMIM and ``mim train mmdysample ...`` look for in ``mmdysample/.mim``.
MIM_PARTS = ('configs', 'tools', 'model-index.yml')

OPENMMLAB = {
    'onedl': [
        'onedl-mmcv>=2.3.6,<2.4',
        'onedl-mmengine>=0.10.12,<0.11',
        'onedl-mmdetection>=3.5.1,<3.6',
        'onedl-mmsegmentation>=1.4.2,<1.5',
    ],
    'upstream': [
        'mmcv>=2.1.0,<2.2',  # mmdet 3.3 and mmsegmentation 1.2 refuse 2.2
        'mmengine>=0.10.7,<0.11',
        'mmdet>=3.3.0,<3.4',
        'mmsegmentation>=1.2.2,<1.3',
        'ftfy',  # mmsegmentation 1.2.2 imports these two without declaring them
        'regex',
    ],
}
#: Both stacks' config inheritance and both training loops need these beside the frameworks.
COMMON = ['setuptools>=77,<82', 'tensorboard']  # setuptools 82 removed pkg_resources


class BuildWithMim(build_py):
    """``build_py`` that also lays the ``.mim`` folder into the package.

    A wheel gets copies. An editable install gets links into the checkout, so that an edited
    config is the config that OpenMIM runs.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            self._link(ROOT / 'mmdysample' / '.mim')
        else:
            self._copy(Path(self.build_lib) / 'mmdysample' / '.mim')

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        mim = Path(self.build_lib) / 'mmdysample' / '.mim'
        return outputs + [str(path) for path in sorted(mim.rglob('*')) if path.is_file()]

    @staticmethod
    def _link(mim: Path) -> None:
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir()
        for part in MIM_PARTS:
            (mim / part).symlink_to(os.path.relpath(ROOT / part, mim))

    @staticmethod
    def _copy(mim: Path) -> None:
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for part in MIM_PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, mim / part, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, mim / part)


setup(
    name='mmdysample',
    version=runpy.run_path(str(ROOT / 'mmdysample' / 'version.py'))['__version__'],
    description='DySample and other feature upsamplers as a plugin for MMDetection and '
    'MMSegmentation, usable with PyTorch alone',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmdysample authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='upsampling dysample carafe object-detection segmentation openmmlab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['mmdysample', 'mmdysample.*']),
    package_data={'': ['*.yaml', '*.html', '*.css']},
    python_requires='>=3.10',
    install_requires=['torch>=2.6'],  # the first release whose torch.load is safe by default
    extras_require={
        **{stack: requirements + COMMON for stack, requirements in OPENMMLAB.items()},
        'tests': [
            'pytest>=8',
            'pytest-timeout',
            'pytest-xdist',
            'hypothesis',
            'fvcore',
            'ruff==0.17.6',  # as in .pre-commit-config.yaml
            'wheel',
            "triton; platform_system == 'Linux'",
        ],
        'docs': [
            'mkdocs>=1.6,<2',
            'mkdocs-material>=9.6,<10',
            'mkdocstrings[python]>=0.30,<2',
            'latex2mathml>=3.78,<4',  # formulas become MathML, so that the site needs no script
        ],
        'reproduce': ['pandas>=2', 'jinja2', 'matplotlib', 'tabulate', 'submitit'],
        'cpu': ['numba>=0.59'],  # native kernels; without it PyTorch's operators serve
        'export': ['onnx', 'onnxscript', 'onnxruntime'],
        'mim': ['openmim'],
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
