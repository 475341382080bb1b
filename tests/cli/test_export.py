"""`loopscale export`: what it says, and its exit status."""

import pytest

from loopscale.cli.main import main
from tests.helpers import tiny_model

pytest.importorskip("gguf", reason="GGUF files need the gguf package: pip install 'loopscale[gguf]'")


@pytest.fixture
def folder(tmp_path):
    from loopscale.data import Corpus, load_tokenizer

    tiny_model(position_embedding="rope", vocab_size=256).save_pretrained(tmp_path / "model")
    load_tokenizer("bytes", Corpus.of("texts", ["a"], ["a"])).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_file_is_written_once(folder, tmp_path, capsys):
    out = tmp_path / "new" / "model.gguf"
    assert main(["export", str(folder), str(out), "--dtype", "f16"]) == 0
    assert f"wrote {out} (f16, 3 loops, 0.0 MiB)" in capsys.readouterr().out
    assert out.read_bytes()[:4] == b"GGUF"
    assert main(["export", str(folder), str(out)]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["export", str(folder), str(out), "--overwrite", "--num_loops", "2"]) == 0
    assert "(f32, 2 loops," in capsys.readouterr().out


def test_what_cannot_be_written_is_one_sentence_and_status_2(tmp_path, capsys):
    tiny_model(readout="raw").save_pretrained(tmp_path / "raw")
    assert main(["export", str(tmp_path / "raw"), str(tmp_path / "out.gguf")]) == 2
    assert "no tokenizer" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out.gguf")]) == 2
    assert "no model at" in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()
