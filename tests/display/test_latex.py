"""LaTeX that compiles: every name is text, groups close, and nothing needs another engine."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.display import Column, Table, to_latex
from loopscale.display.latex import latex

HOSTILE = ["a_b", "50%", "$x$", "#1", "a&b", "\\input{/etc/passwd}", "{", "}", "^~", "<b>|", "\x1b[2J", "a\nb"]
HOSTILE += ["é ñ ç", "模型", "[x]", "*"]
ALLOWED = re.compile(
    r"\\(text(backslash|asciicircum|asciitilde|less|greater|bar)|ldots)\{\}|\\[{}$&#_%]|\$\\(pm|times|\||infty|leq|geq)\$"
    r"|\$-\$|\$_\{[0-9k]\}\$|\\[`'^~\"=.vcr]\{[A-Za-z]\}|\{`\}"
)


def table(*cells):
    columns = tuple(Column(cell, numeric=i > 0) for i, cell in enumerate(cells))
    return Table("t_1", cells[0], "± 95% × ‖H₄‖ – …", columns, (cells, cells))


@given(st.text(max_size=30))
def test_any_text_is_plain_ascii_without_a_command_of_its_own(text):
    found = latex(text)
    assert found.isascii() and found.isprintable()
    assert not re.search(r"[\\{}$&#^_~%|<>]", ALLOWED.sub("", found))


def test_a_table_is_whole():
    text = to_latex(table("condition", "exit 1"))
    lines = text.splitlines()
    assert lines[0] == "% needs \\usepackage{booktabs}" and "\\begin{tabular}{@{}lr@{}}" in lines
    assert [line for line in lines if line.endswith("rule")] == ["\\toprule", "\\midrule", "\\bottomrule"]
    assert lines.count("condition & exit 1 \\\\") == 3 and "\\label{tab:t-1}" in lines


def test_letters_keep_their_accents_and_others_their_number():
    assert latex("é ñ Å 模") == "\\'{e} \\~{n} \\r{A} [U+6A21]"


@pytest.mark.parametrize("name", HOSTILE)
def test_cells_stay_cells(name):
    rows = [line for line in to_latex(table(name, "1")).splitlines() if line.endswith("\\\\")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert not any(row.startswith(("[", "*")) for row in rows)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine: install TeX Live")
def test_it_compiles(tmp_path):
    body = "\n".join(to_latex(table(name, "1")) for name in HOSTILE)
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "a.tex").write_text(document, encoding="ascii")
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)
