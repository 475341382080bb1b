"""The house stays one in which a line knows its room: names, sizes of folders and of modules."""

import ast
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import loopscale
from loopscale.cli.main import COMMANDS

ROOT = Path(loopscale.__file__).parent
LIBRARIES = ("torch", "transformers")
MOST_FILES, MOST_LINES, BESIDE_COMMANDS = 12, 300, 5

#: Names that stand more than once, each with the one meaning that it has everywhere. A command's file is named as what
#: it runs, and is not counted.
MEANINGS = {
    "audit": "the audit: the package, and the study's topic of it",
    "config": "the configuration of what its package makes, a dataclass and its presets",
    "display": "tables and figures: the package that draws any, and a file for those of one package",
    "facts": "what a model says of itself: the class, and our own model's",
    "halting": "halting: the package, and the study's topic of it",
    "huginn": "a family of models: its live adapter, and its converter",
    "monitor": "what watches a training: the package for any module, and the audit's own",
    "page": "a page of one file: the package that frames any, and that of a lens",
    "parcae": "a family of models: its live adapter, and its converter",
    "report": "the report of a study",
    "windows": "windows of tokens that a model trains on: of texts that are held, and of a stream",
}


def modules():
    return [path for path in ROOT.rglob("*.py") if not path.stem.startswith("__")]


def packages():
    return [path.parent for path in ROOT.rglob("__init__.py")]


def test_a_name_has_one_meaning():
    found = defaultdict(list)
    for path in [*modules(), *packages()]:
        command = path.parent == ROOT / "cli" and path.stem in COMMANDS
        if not command:
            found[path.stem].append(str(path.relative_to(ROOT)))
    twice = {name: places for name, places in found.items() if len(places) > 1 and name not in MEANINGS}
    assert not twice, "give one of them a name of its own, or write down the meaning that they share"


def test_no_meaning_is_written_down_for_nothing():
    stems = [path.stem for path in [*modules(), *packages()]]
    assert [name for name in MEANINGS if stems.count(name) < 2] == []


def test_a_public_name_hides_no_module():
    hidden = []
    for folder in packages():
        dotted = ".".join(["loopscale", *folder.relative_to(ROOT).parts])
        below = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
        hidden += [f"{dotted}.{name}" for name in getattr(import_module(dotted), "__all__", ()) if name in below]
    assert hidden == []


def test_folders_hold_at_most_a_dozen_files():
    beside = [path for path in modules() if path.parent == ROOT / "cli" and path.stem not in COMMANDS]
    assert len(beside) <= BESIDE_COMMANDS, "a command is one file: what several share goes into those beside them"
    for folder in packages():
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if folder.name != "cli":
            assert len(files) <= MOST_FILES, f"{folder} holds {len(files)} files"


def test_modules_stay_readable_at_a_sitting():
    longest = {path: path.read_text(encoding="utf-8").count("\n") for path in ROOT.rglob("*.py")}
    assert {str(path): lines for path, lines in longest.items() if lines > MOST_LINES} == {}


def private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(tree):
    """Yield what a module says of the private parts of other people's objects: attributes, imports, names in texts."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Call(func=ast.Name("super")))
            ):
                continue  # a method of the class itself, or one that it overrides
            case ast.Attribute(attr=name) if private(name):
                yield ast.unparse(node)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in LIBRARIES:
                if any(map(private, [*module.split("."), *(alias.name for alias in node.names)])):
                    yield ast.unparse(node)
            case ast.Import() if any(private(part) for alias in node.names for part in alias.name.split(".")):
                yield ast.unparse(node)
            case ast.Constant(value=str(text)) if any(f"{library}._" in text for library in LIBRARIES):
                yield text


def test_private_names_of_torch_and_transformers_stand_in_hf_alone():
    found = {}
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] != "hf":
            found[str(path.relative_to(ROOT))] = list(private_names(ast.parse(path.read_text(encoding="utf-8"))))
    assert {path: names for path, names in found.items() if names} == {}, "give it a name in hf/"


def test_private_names_are_found_however_they_are_reached():
    lines = (
        "from torch._dynamo import x",
        "import torch._C",
        "y = torch.ops.aten._fused_rms_norm",
        "z = model._tied",
    )
    lines = (*lines, "from transformers.utils import _private", "'torch._inductor' in name")
    assert [len(list(private_names(ast.parse(line)))) for line in lines] == [1] * len(lines)
    assert not list(private_names(ast.parse("self._own, super()._init_weights, model.__dict__, torch.float32")))
