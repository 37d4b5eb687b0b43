"""The navigation lists every page of an upsampler, so that a new page needs no line of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INDEX = 'upsamplers/index.md'


def on_config(config: Any) -> Any:
    """Put the other pages of the folder behind its index; MkDocs takes their headings as titles."""
    folder = Path(config['docs_dir']) / Path(INDEX).parent
    pages = sorted(f'{folder.name}/{page.name}' for page in folder.glob('*.md'))
    for item in config['nav']:
        for entries in item.values():
            if isinstance(entries, list) and INDEX in entries:
                entries.extend(page for page in pages if page not in entries)
    return config
