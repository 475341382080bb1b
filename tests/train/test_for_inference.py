"""What training knows of its tokens, where inference reads it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from loopscale.audit import measured
from loopscale.data import batches
from loopscale.data.encoding import end_of_text, vocabulary_size
from loopscale.data.tokenization import fingerprint
from loopscale.model_card import Known
from loopscale.train import load_run_data, train

TEXTS = ["a", "line 3: the loops", "Āÿ ÿĀ"]


def saved_bpe(folder: Path, **special: str) -> str:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=list(special.values()), initial_alphabet=alphabet)
    made.train_from_iterator([f"line {i} loops" for i in range(99)], trainer)
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return str(folder)


def ids_in(folder: str, file: str) -> list:
    document = json.loads(Path(folder, file).read_text())
    return [document.get(f"{name}_token_id") for name in ("bos", "eos", "pad")]


@pytest.mark.parametrize(
    ("special", "ids"),
    [
        ({"eos_token": "<end>"}, [None, 0, 0]),
        ({"pad_token": "<pad>", "eos_token": "<end>", "bos_token": "<begin>"}, [2, 1, 0]),
        ({}, [None, None, None]),
    ],
)
def test_ids_of_a_tokenizer_stand_in_both_configs(run_config, tmp_path, special, ids):
    run = run_config(max_steps=1)
    run = replace(run, data=replace(run.data, tokenizer=saved_bpe(tmp_path / "tokenizer", **special)))
    train(run, quiet=True)
    assert ids_in(run.out, "config.json") == ids_in(run.out, "generation_config.json") == ids
    tokenizer = AutoTokenizer.from_pretrained(run.out)
    assert tokenizer.pad_token_id is not None and tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == 48
    assert tokenizer(TEXTS[1]).input_ids == load_run_data(run).tokenizer(TEXTS[1]).input_ids


@pytest.fixture
def bytes_run(run_config):
    run = run_config()
    train(run, quiet=True)
    return run


def test_a_run_of_bytes_serves_a_pipeline_with_batches(bytes_run):
    write = pipeline("text-generation", model=bytes_run.out, device="cpu")
    options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    alone = [write(text, **options)[0]["generated_text"] for text in TEXTS]
    assert [out[0]["generated_text"] for out in write(TEXTS, batch_size=3, **options)] == alone
    assert AutoModelForCausalLM.from_pretrained(bytes_run.out).get_input_embeddings().num_embeddings == 256


def test_bytes_are_read_as_in_training_after_saving(bytes_run):
    ours, saved = load_run_data(bytes_run).tokenizer, AutoTokenizer.from_pretrained(bytes_run.out)
    assert fingerprint(saved) == fingerprint(ours) and vocabulary_size(saved) == 256
    for text in TEXTS:
        ids = saved(text).input_ids
        assert ids == list(text.encode()) and saved.decode(ids) == text
    assert end_of_text(saved) is None and saved.eos_token_id == 0 and saved.pad_token_id == 255
    assert saved.decode([saved.eos_token_id]) == "\0"  # what lm-eval stops at: a text of its own


def test_a_mask_is_found_where_bytes_are_padded_without_one(bytes_run):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(bytes_run.out), AutoTokenizer.from_pretrained(bytes_run.out)
    padded = tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    asked = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(padded.input_ids, **asked), model.generate(**padded, **asked))


def test_exits_and_verdicts_stand_on_the_card_of_what_was_measured(bytes_run):
    trained = train(bytes_run, quiet=True)  # it was trained before
    before = (bytes_run.folder / "README.md").read_text()
    assert f"SHA-256 of its content {trained.data.corpus.sha256}" in before
    assert "Worked out from the configuration" in before and "**blind spot**" in before
    windows = list(batches(trained.data.valid, 2, limit=2))
    trained.model.write_card(bytes_run.folder, measured(trained.model, windows, Known(corpus="mine")))
    after = (bytes_run.folder / "README.md").read_text()
    assert "Measured by `loopscale audit`" in after and "trained on the text mine" in after
    exits = re.findall(r"^\| (\d+) \| (.+) \|$", after, re.MULTILINE)
    assert [int(exit) for exit, _ in exits] == list(range(1, trained.model.num_loops + 1))
    assert "## Not known here" in after
    assert "perplexity of its exits" not in after.partition("## Not known here")[2]
