"""``mmseg::`` in a config's ``_base_``, whatever the installed distribution of mmseg is called."""

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed


def resolve_mmseg_configs() -> None:
    """Point ``mmseg::`` at the importable package where no ``mmsegmentation`` is installed.

    mmengine looks the prefix up under the name of the distribution, which OneDL's build of mmseg
    does not have: without this, every config that inherits one of mmseg's own fails there.
    """
    if not is_installed(MODULE2PACKAGE['mmseg']):
        MODULE2PACKAGE['mmseg'] = 'mmseg'
