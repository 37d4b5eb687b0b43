"""Build of the package's ``.mim`` folder; all else is in pyproject.toml.

Imports neither torch nor the package.
"""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: What OpenMIM and ``mim train mmdysample ...`` look for in ``mmdysample/.mim``.
MIM_PARTS = ('configs', 'tools', 'model-index.yml')


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
        provenance = runpy.run_path(str(ROOT / 'mmdysample' / 'engine' / 'provenance.py'))
        revision = provenance['revision'](ROOT)
        if revision:  # what an installed package cannot find out
            (mim / 'revision').write_text(revision + '\n')


setup(cmdclass={'build_py': BuildWithMim})
