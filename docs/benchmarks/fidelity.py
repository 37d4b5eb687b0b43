"""Write the sections "How close to the published run" of the pages from docs/fidelity.yaml.

Run from the repository root: python docs/benchmarks/fidelity.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[1]
DATA = DOCS / 'fidelity.yaml'


def section(entry: dict[str, Any], sources: dict[str, dict[str, str]]) -> str:
    """The table of one model, in Markdown."""
    lines = ['| Setting | Here | Published | | Source |', '|---|---|---|---|---|']
    for item in entry['aspects']:
        only = f' ({", ".join(f"`{name}`" for name in item["only"])})' if 'only' in item else ''
        ours = show(item['ours']) if item.get('ours') is not None else ''
        theirs = item.get('theirs') or ours
        state = item['is'] + (f': {item["switch"]}' if 'switch' in item else '')
        keys = item.get('source', [])
        links = ', '.join(link(sources[key]) for key in ([keys] if isinstance(keys, str) else keys))
        cells = (item['aspect'] + only, ours or default(item), str(theirs), state, links)
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def show(value: Any) -> str:
    """A value as it is written in a config."""
    return f'`{json.dumps(value)}`' if not isinstance(value, str) else f'`{value}`'


def default(item: dict[str, Any]) -> str:
    """What stands for an aspect without a value."""
    return 'default' if 'key' in item else ''


def link(source: dict[str, str]) -> str:
    """A file of a public repository."""
    url = f'https://github.com/{source["repo"]}/blob/HEAD/{source["path"]}'
    name = f'{source["repo"].split("/")[1]}: {source["path"].rsplit("/", 1)[-1]}'
    return f'[{name}]({url})'


def render(text: str, name: str, entry: dict[str, Any], sources: dict[str, Any]) -> str:
    """Put the table of a model into its page.

    Raises:
        ValueError: If the page has no place for it.
    """
    pattern = re.compile(rf'(<!-- fidelity: {name} -->\n)[^<]*(<!-- end -->)')
    found, count = pattern.subn(lambda m: f'{m[1]}\n{section(entry, sources)}\n\n{m[2]}', text)
    if count != 1:
        raise ValueError(f'{entry["page"]} needs one pair <!-- fidelity: {name} -->, <!-- end -->')
    return found


def pages(folder: Path = DOCS) -> dict[Path, str]:
    """The pages as they should be."""
    document = yaml.safe_load(DATA.read_text(encoding='utf-8'))
    sources = document.pop('sources')
    texts: dict[Path, str] = {}
    for name, entry in document.items():
        path = folder / entry['page']
        text = texts.get(path) or path.read_text(encoding='utf-8')
        texts[path] = render(text, name, entry, sources)
    return texts


if __name__ == '__main__':
    for path, text in pages().items():
        path.write_text(text, encoding='utf-8')
