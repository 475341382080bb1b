"""Declarations of a module, read off its source: dataclasses and constants, without what the module imports.

The fields of a run are declared where torch is imported, which takes seconds; help and a misspelt option need only what
is written there. A test holds what is read here against the classes themselves.
"""

import ast
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1]


def declarations(file: str) -> dict[str, Any]:
    """Return by name what a file of the library declares: its classes as dataclasses of their fields, its constants.

    What needs more than the standard library is left out, and all of it where there is no source.
    """
    found: dict[str, Any] = {"dataclass": dataclass}
    try:
        body = ast.parse((SOURCE / file).read_text(encoding="utf-8")).body
    except OSError:
        return found
    for node in body:
        if (kept := _kept(node)) is not None:
            with suppress(NameError):  # it is made of something that was left out
                exec(compile(ast.fix_missing_locations(ast.Module([kept], [])), file, "exec"), found)
    return found


def _kept(node: ast.stmt) -> ast.stmt | None:
    """Return a statement without what it takes from elsewhere; None for one that declares nothing."""
    match node:
        case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in sys.stdlib_module_names:
            return node
        case ast.ClassDef(name=name, body=body) if any(isinstance(entry, ast.AnnAssign) for entry in body):
            bare = ast.parse(f"@dataclass\nclass {name}: pass").body[0]
            assert isinstance(bare, ast.ClassDef)
            bare.body = [entry for entry in body if isinstance(entry, ast.AnnAssign | ast.Expr)]
            return bare
        case ast.Assign() | ast.AnnAssign() | ast.Import():
            return node
    return None
