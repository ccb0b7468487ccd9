"""Formulas of the documentation's site: ```math blocks become MathML, which browsers show without a script; GitHub shows them itself."""

import re
from typing import Any

from latex2mathml.converter import convert


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with MathML in place of its ```math blocks."""
    return re.sub(r"^```math\n(.*?)^```$", _formula, markdown, flags=re.MULTILINE | re.DOTALL)


def _formula(block: re.Match[str]) -> str:
    return f'<div class="formula">{convert(block[1].strip(), display="block")}</div>\n'
