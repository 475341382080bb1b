import pytest

from loopscale.cli.main import main
from tests.cli.test_generate_cli import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("lens"))


def test_it_writes_a_page_and_prints_its_means(folder, tmp_path, capsys):
    out = tmp_path / "deep" / "lens.html"
    assert main(["lens", str(folder), "--text", "loops and loops", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "15 tokens" in printed and "settled by here" in printed and "wrote" in printed
    assert "<title>Loop lens" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "by --text, or a file of it by --file"),
        (["--text", "a", "--file", "b"], "by --text, or a file"),
        (["--file", "no.txt"], "cannot be read"),
        (["--text", ""], "empty"),
        (["--text", "a", "--out", "."], "name a file"),
        (["--text", "a", "--window", "1"], "tokens at a time"),
    ],
)
def test_bad_input_is_one_sentence(folder, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    assert main(["lens", str(folder), *options]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1
