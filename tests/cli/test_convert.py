import torch

from loopscale import LoopedForCausalLM
from loopscale.cli.main import main
from tests.helpers import tiny_model

OURO = {
    "position_embedding": "rope",
    "norm_placement": "sandwich",
    "recurrence": "rmsnorm",
    "share_loop_norm": True,
    "exit_gate": True,
}


def test_convert_writes_a_folder_and_says_so(tmp_path, capsys):
    model = tiny_model(**OURO)
    model.save_pretrained(tmp_path / "ours")
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "ouro"), "--to", "ouro"]) == 0
    assert f"wrote {tmp_path / 'ouro'} (ouro, without a tokenizer)" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "ouro"), str(tmp_path / "again")]) == 0
    again = LoopedForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "ours")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for words, told in (
        ([str(tmp_path / "ours"), ".", "--overwrite"], "the folder you are in"),
        ([str(tmp_path / "ours"), str(tmp_path), "--overwrite"], "the folder you are in"),
        (["nobody/no-such-model", str(tmp_path / "new")], "no model at 'nobody/no-such-model'"),
        ([str(tmp_path / "ours"), str(tmp_path / "ours")], "--overwrite"),
        ([str(tmp_path / "ours"), str(tmp_path / "new"), "--to", "uoro"], "did you mean 'ouro'"),
        ([str(tmp_path / "none.pt"), str(tmp_path / "new")], "no checkpoint at"),
        ([str(tmp_path / "ours")], "DESTINATION must be given"),
    ):
        capsys.readouterr()
        assert main(["convert", *words]) == 2
        error = capsys.readouterr().err.strip().split("\n")[-1]
        assert error.startswith("loopscale convert: ") and told in error
    assert not (tmp_path / "new").exists()
