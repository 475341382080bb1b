"""Mathematics in Markdown, as MathML: browsers draw it themselves, so that a page needs no script and no font.

Written as GitHub reads it: $`x`$ within a line, and blocks fenced as ```math.
"""

import re
from html import escape
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

INLINE = r"\$`([^`]+)`\$"
BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEFORE_CODE, BEFORE_FENCES = 200, 27  # priorities: the backticks of Markdown have 190, the fences of pymdownx 25


def mathml(tex: str, display: str) -> str:
    """Return a formula as MathML, its source beside it for those who cannot see it drawn."""
    drawn = convert(tex.strip(), display=display)
    return drawn.replace("<math ", f'<math aria-label="{escape(" ".join(tex.split()), quote=True)}" ', 1)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element | str, int, int]:
        return self.md.htmlStash.store(mathml(m.group(1), "inline")), m.start(0), m.end(0)


class _Block(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        def drawn(found: re.Match[str]) -> str:
            return self.md.htmlStash.store(f'<div class="formula">{mathml(found.group(1), "block")}</div>')

        return BLOCK.sub(drawn, "\n".join(lines)).split("\n")


class Formulas(Extension):
    """Python-Markdown's extension."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register both ways of writing."""
        md.inlinePatterns.register(_Inline(INLINE, md), "formula", BEFORE_CODE)
        md.preprocessors.register(_Block(md), "formulas", BEFORE_FENCES)


def makeExtension(**options: Any) -> Formulas:
    """Return the extension, by the name that Python-Markdown looks for."""
    return Formulas(**options)
