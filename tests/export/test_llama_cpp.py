"""What a real llama.cpp makes of an exported file: the text, the probabilities and the tokens are ours."""

import pytest
import torch

from loopscale.export import to_gguf
from loopscale.model import LoopedForCausalLM
from tests.export.byte_level import KINDS, bpe, byte_tokenizer
from tests.helpers import tiny_config

NEW_TOKENS = 64
PROMPTS = (
    *(
        "The loop",
        "The",
        "A readout",
        "and a penalty",
        "def main(",
        "return",
        "Nobody",
        "for 4",
        " layers",
        "the state",
    ),
    *("twice", "12", "k)", "\n", "depth", "norm is", "sees", "in range", "what it had.", "[step("),
)
HARD = (
    "don't DON'T I'll we've\tx  y   z \n\n  end\r\n",
    "1234567 3.14 x1y22z333 ²½ ٣٤",
    "naïve café Straße Ünïcödé ŒUVRE ǅ 你好，世界 こんにちは привет مرحبا हिन्दी",
    "a_b-c/d\\e (f) [g] {h} <i> «j» — “k” … !!! ??? $5 100% #tag @you",
    "😀 👩‍👩‍👧 \u200b\u00a0x\u3000y ÷ ÿ",
    "  leading, trailing  ",
    "<|endoftext|>The loop<|begin|> <|endof",
    "\v\f\x1c",
)


def test_the_text_and_its_probabilities_are_those_of_the_model(subject, llama_cpp, tmp_path):
    model, tokenizer = subject
    server = llama_cpp(to_gguf(model, tokenizer, tmp_path / "model.gguf"))
    seen = set()
    for prompt in PROMPTS:
        answer = server.write(prompt, NEW_TOKENS, ignore_eos=True)
        before = tokenizer(prompt).input_ids
        ids = torch.tensor([before + answer["tokens"]])
        with torch.no_grad():
            ours = model(ids[:, :-1]).logits.double().log_softmax(-1)[0, len(before) - 1 :]
        behind = ours.max(-1).values - ours[range(NEW_TOKENS), answer["tokens"]]
        assert behind.max() < 1e-3, prompt  # the likeliest everywhere, but for ties that rounding decides
        for theirs, expected in zip(answer["completion_probabilities"], ours, strict=True):
            for token in theirs["top_logprobs"]:
                assert abs(token["logprob"] - expected[token["id"]]) < 5e-4
        seen.add(tuple(answer["tokens"]))
    assert len(seen) > len(PROMPTS) / 2  # not one text for every prompt


@pytest.mark.parametrize("kind", ["bytes", "special tokens as text", *KINDS])
def test_text_becomes_the_same_tokens(kind, llama_cpp, tmp_path):
    if kind == "bytes":
        tokenizer = byte_tokenizer()
    elif kind == "special tokens as text":
        tokenizer = bpe("gpt-2", "".join(HARD), split_special_tokens=True)
    else:
        tokenizer = bpe(kind, "".join(HARD))
    model = LoopedForCausalLM(tiny_config(vocab_size=len(tokenizer) + 3, position_embedding="rope"))
    server = llama_cpp(to_gguf(model, tokenizer, tmp_path / "model.gguf"))
    for text in HARD:
        assert server.tokens(text) == tokenizer(text).input_ids, text


def test_a_token_at_the_beginning_comes_from_the_tokenizer(llama_cpp, tmp_path):
    from tokenizers import processors

    tokenizer = bpe("gpt-2", "".join(HARD), bos_token="<|begin|>")
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    model = LoopedForCausalLM(tiny_config(vocab_size=len(tokenizer), position_embedding="rope"))
    server = llama_cpp(to_gguf(model, tokenizer, tmp_path / "model.gguf"))
    assert server.tokens("The loop") == tokenizer("The loop").input_ids == [begin, *tokenizer("The loop").input_ids[1:]]


def test_writing_ends_where_the_model_ends_it(llama_cpp, tmp_path):
    """The end-of-text token's row is made the likeliest, so that the first token ends the text."""
    tokenizer = bpe("gpt-2", "".join(HARD))
    model = LoopedForCausalLM(
        tiny_config(vocab_size=len(tokenizer), position_embedding="rope", tie_word_embeddings=False)
    ).eval()
    ids = torch.tensor([tokenizer("The loop").input_ids])
    with torch.no_grad():
        z = model.readout_state(model(ids, output_states=True).states[-1], model.num_loops - 1)
        model.lm_head.weight[tokenizer.eos_token_id] = 100 * z[0, -1]
    server = llama_cpp(to_gguf(model, tokenizer, tmp_path / "model.gguf"))
    assert server.write("The loop", 5)["stop_type"] == "eos"
    assert len(server.write("The loop", 5, ignore_eos=True)["tokens"]) == 5


@pytest.mark.parametrize(("dtype", "tolerance"), [("f16", 0.05), ("bf16", 0.3), ("q8_0", 0.5)])
def test_smaller_types_run(subject, dtype, tolerance, llama_cpp, tmp_path):
    model, tokenizer = subject
    server = llama_cpp(to_gguf(model, tokenizer, tmp_path / "model.gguf", dtype))
    answer = server.write("The loop runs", 1)
    with torch.no_grad():
        ours = model(torch.tensor([tokenizer("The loop runs").input_ids])).logits[0, -1].log_softmax(-1)
    best = answer["completion_probabilities"][0]["top_logprobs"][0]
    assert best["id"] == ours.argmax()
    assert abs(best["logprob"] - ours[best["id"]]) < tolerance
