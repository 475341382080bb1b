"""Tables as LaTeX, with the rules of booktabs: what a paper takes in by \\input.

Every cell is text: no name is read as a command, and no character needs another package or engine.
"""

import unicodedata

from loopscale.display.table import Table
from loopscale.display.text import inert

WORDS = {
    **{c: f"\\{c}" for c in "{}$&#_%"},
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "`": "{`}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "‖": "$\\|$",
    "–": "--",
    "—": "---",
    "…": "\\ldots{}",
    "−": "$-$",
    "∞": "$\\infty$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    **{small: f"$_{{{digit}}}$" for digit, small in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    "ₖ": "$_{k}$",
}
ACCENTS = {"̀": "`", "́": "'", "̂": "^", "̃": "~", "̈": '"', "̄": "=", "̇": ".", "̌": "v", "̧": "c", "̊": "r"}


def to_latex(table: Table) -> str:
    """Return the table as a `table` environment, numbers to the right, that needs the package booktabs."""
    ends = "".join("r" if column.numeric else "l" for column in table.columns)
    head = _row([column.heading for column in table.columns])
    body = "\n".join(_row(row) for row in table.rows)
    words = " ".join(filter(None, (table.title and f"{table.title.rstrip('.')}.", table.caption)))
    return (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}\n\\centering\n\\small\n"
        f"\\caption{{{latex(words)}}}\n\\label{{tab:{_label(table.name)}}}\n"
        f"\\begin{{tabular}}{{@{{}}{ends}@{{}}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def latex(text: str) -> str:
    """Return text as LaTeX shows it: a letter with an accent by its command, one that is not known by its number."""
    return "".join(_letter(c) for c in unicodedata.normalize("NFC", inert(text)))


def _letter(character: str) -> str:
    if character in WORDS:
        return WORDS[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS:
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"[U+{ord(character):04X}]"


def _label(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in name)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    first, *rest = map(latex, cells)
    guarded = f"{{}}{first}" if first.startswith(("[", "*")) else first  # after \\ they would be its arguments
    return f"{' & '.join([guarded, *rest])} \\\\"
