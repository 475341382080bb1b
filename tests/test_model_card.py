import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import PreTrainedModel
from transformers.utils import hub

from loopscale.audit import stated
from loopscale.convert import convert_checkpoint
from loopscale.model import LoopedForCausalLM
from loopscale.model_card import Known, card_of, hub_id
from tests.helpers import tiny_config, tiny_model

HOSTILE = "evil\n---\nlicense: mit\n---\n# big ](http://x) <script> | `{{ 7 * 7 }}` {% raw %} \x1b[2J"


def card_in(folder):
    return ModelCard.load(folder / "README.md")


def test_a_saved_model_says_its_sizes_and_what_is_not_known(tmp_path):
    tiny_model(num_prelude_layers=1).save_pretrained(tmp_path)
    card = card_in(tmp_path)
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["looped-language-model", "recurrent-depth", "early-exit", "loopscale"],
    }
    parameters = LoopedForCausalLM.from_pretrained(tmp_path).num_parameters()
    for told in (f"| parameters | {parameters:,} |", "| layers that run once | 1 before |", "2, applied 3 times"):
        assert told in card.text
    left_open = card.text.partition("## Not known here")[2]
    assert all(what in left_open for what in ("licence", "text", "`loopscale evaluate`", "`loopscale audit`"))
    assert "## Perplexity" not in card.text and "verdict" not in card.text


def test_names_are_text():
    known = Known(HOSTILE, HOSTILE, 3, HOSTILE, (1.0, 2.0), HOSTILE, {HOSTILE: HOSTILE}, True)
    card = card_of(tiny_config(), 1, known)
    data = ModelCard(str(card)).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert "<script>" not in card.text and "](http" not in card.text and "\x1b" not in card.text
    assert "{{ 7 * 7 }}" in card.text and "49" not in card.text
    assert not re.search(r"^(license|---|# big)", card.text, re.MULTILINE)
    rows = [line for line in card.text.splitlines() if line.startswith("| evil")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 3  # two cells


def test_an_edited_card_is_kept_and_an_untouched_one_renewed(tmp_path):
    model, place = tiny_model(), tmp_path / "README.md"
    model.save_pretrained(tmp_path)
    model.write_card(tmp_path, Known(corpus="notes"))
    assert "notes" in place.read_text()
    edited = place.read_text().replace("library_name:", "license: mit\nlibrary_name:")
    place.write_text(edited)
    model.save_pretrained(tmp_path)
    assert place.read_text() == edited and card_in(tmp_path).data.license == "mit"


def test_a_converted_folder_of_ours_takes_its_card_along(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "mine")
    model.write_card(tmp_path / "mine", Known(corpus="notes"))
    told = (tmp_path / "mine" / "README.md").read_text()
    assert (
        convert_checkpoint(str(tmp_path / "mine"), tmp_path / "hub", auto_map=True) / "README.md"
    ).read_text() == told


@pytest.mark.parametrize("theirs", [None, "---\nlicense: mit\n---\nMine.\n"])
def test_push_to_hub_takes_our_card_where_the_repository_has_none(tmp_path, monkeypatch, theirs):
    class Api:
        def create_repo(self, repo_id, **options):
            return type("Repo", (), {"repo_id": repo_id})

    uploaded = {}

    def upload(self, folder, repo_id, *args, **kwargs):
        uploaded.update({path.name: path.read_bytes() for path in Path(folder).iterdir()})

    def load(repo_id, **options):
        if theirs is None:
            raise hub.EntryNotFoundError("none")
        return ModelCard(theirs)

    monkeypatch.setattr(hub, "hf_api", Api)
    monkeypatch.setattr(hub.ModelCard, "load", load)
    monkeypatch.setattr(PreTrainedModel, "_upload_modified_files", upload)
    tiny_model().push_to_hub("somebody/looped")
    assert {"config.json", "model.safetensors", "generation_config.json", "README.md"} == uploaded.keys()
    card = uploaded["README.md"].decode()
    assert ("A looped language model" in card) is (theirs is None) and ("license: mit" in card) is (theirs is not None)
    assert json.loads(uploaded["config.json"])["model_type"] == "loopscale"


def test_the_configuration_alone_gives_a_verdict():
    blind = stated(tiny_config(), Known(steps=3))
    assert blind.verdicts["scale"].startswith("**blind spot**") and not blind.audited and blind.steps == 3
    assert stated(tiny_config(readout="raw"), Known()).verdicts["scale"].startswith("visible to cross-entropy at exits")
    assert replace(blind, corpus="x").unknown != blind.unknown


def test_the_hub_is_told_the_model_it_was_made_from(tmp_path):
    assert [hub_id(name) for name in ("owner/model", "owner/model/file.gguf", "gpt2", str(tmp_path))] == [
        *("owner/model", "owner/model", "gpt2"),
        None,
    ]
    cards = [card_of(tiny_config(), 10, known) for known in (Known(base_model="owner/model"), Known())]
    assert [ModelCard(str(card)).data.get("base_model") for card in cards] == ["owner/model", None]
