"""A Griffe extension: what our docstrings say in Sphinx's notation, said in Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_ROLE = re.compile(r':(?:func|class|meth|attr|mod|data):`([^`]+)`')
_MATH = re.compile(r':math:`([^`]+)`')
_CODE = re.compile(r'^\.\. code-block:: (\w+)\n\n((?:[ ]+.*\n?|\n)+)', re.MULTILINE)
_TABLE = re.compile(r'^(=+ [= ]+=)\n(?:.+\n)+?\1\n(?:.+\n)+?\1$', re.MULTILINE)


def to_markdown(docstring: str) -> str:
    """Translate roles, code blocks and tables; the rest is Markdown already."""
    text = _MATH.sub(r'$\1$', docstring)
    text = _ROLE.sub(_link, text)
    text = _CODE.sub(lambda m: f'```{m[1]}\n{textwrap.dedent(m[2]).strip()}\n```\n\n', text)
    return _TABLE.sub(lambda m: f'```text\n{m[0]}\n```', text)


def _link(match: re.Match[str]) -> str:
    name = match[1]
    code = f'<code>{name}</code>'
    if not name.startswith('mmdysample.'):
        return code
    return f'<autoref optional identifier="{name}">{code}</autoref>'


class Roles(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
