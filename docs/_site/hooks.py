"""What MkDocs does to our pages: formulas become MathML, links out of docs/ become names.

The repository's pages are read as files too. There `../configs/bccd` is a link; on the site, which
holds docs/ alone, it becomes the path in code type. A target that does not exist is a warning, and
with that an error of the strict build.
"""

from __future__ import annotations

import html
import logging
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

log = logging.getLogger('mkdocs.hooks.mmdysample')

_LINK = re.compile(r'(?<!!)\[([^\]\[]+)\]\((\.\./[^)\s#]*)\)')
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn links to files outside of the documentation into their paths."""
    docs = Path(config['docs_dir'])
    folder = Path(page.file.abs_src_path).parent

    def rewrite(match: re.Match[str]) -> str:
        text, link = match.groups()
        target = Path(os.path.normpath(folder / link))
        if target.is_relative_to(docs):
            return match[0]
        if not target.exists():
            log.warning('%s links to %s, which does not exist', page.file.src_path, link)
        name = f'`{target.relative_to(docs.parent)}`'
        return f'{text} ({name})' if ' ' in text else name

    return _LINK.sub(rewrite, markdown)


def on_page_content(page_html: str, page: Any, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script."""

    def draw(match: re.Match[str]) -> str:
        tag, bracket, source = match.groups()
        latex = html.unescape(source).strip()
        try:
            formula = convert(latex, display='block' if bracket == '[' else 'inline')
        except Exception as error:  # whatever the converter stumbles over, the page is named
            log.warning('%s: cannot convert $%s$: %s', page.file.src_path, latex, error)
            return match[0]
        return f'<{tag} class="formula">{formula}</{tag}>'

    return _FORMULA.sub(draw, page_html)
