"""Formulas become MathML while the site is built: no script, and nothing from other places.

Arithmatex has found them and left TeX: `\\(...\\)` in a line, `\\[...\\]` on lines of its own.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', flags=re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """A page's HTML, its formulas as MathML."""
    return _FORMULA.sub(_to_mathml, content)


def _to_mathml(found: re.Match[str]) -> str:
    tag, opening, tex = found.groups()
    display = "block" if opening == "[" else "inline"
    return f'<{tag} class="formula">{convert(html.unescape(tex), display=display)}</{tag}>'
