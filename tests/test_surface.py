"""What others build on stays as it is, unless someone decides otherwise."""

import pytest

from tests.surface import COMMANDS, FOLDER, MEND, command, names, signatures, usage


def frozen(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def test_public_names():
    assert names() == frozen("names.txt"), MEND


def test_signatures():
    assert signatures() == frozen("signatures.txt"), MEND


def test_list_of_commands():
    assert f"{usage()}\n" == frozen("loopscale.txt"), MEND


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name):
    assert command(name) == frozen(f"{name}.txt"), MEND


def test_nothing_is_frozen_that_is_gone():
    assert {path.stem for path in FOLDER.glob("*.txt")} == {"names", "signatures", "loopscale", *COMMANDS}
