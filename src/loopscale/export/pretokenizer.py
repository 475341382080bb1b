"""Pre-tokenizers of llama.cpp: the name under which it cuts a text as a byte-level BPE tokenizer here does.

llama.cpp keeps a list of them in its code and looks the name up; what it does not know it would cut in another way, in
silence. Only what is known to be cut alike has a name here: its pattern for GPT-4o, for one, is another where letters
carry marks, as in Hindi.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Piece = Mapping[str, Any]

# The patterns that tokenizer.json files hold. The rest of the line after a word's letters, marks and white space:
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2_TAIL = r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"

GPT2 = ("'s|'t|'re|'ve|'m|'ll|'d" + _GPT2_TAIL, "'(?:[sdmt]|ll|ve|re)" + _GPT2_TAIL)
LLAMA3 = _SUFFIXES + _WORD + r"|\p{N}{1,3}" + _TAIL
QWEN2 = _SUFFIXES + _WORD + r"|\p{N}" + _TAIL

# (what cuts a text, one after another; whether a piece that is a token stays whole, merges or not) -> llama.cpp's name
NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    **{((pattern,), False): "gpt-2" for pattern in GPT2},
    **{(("digits", pattern), False): "smollm" for pattern in GPT2},
    ((LLAMA3,), False): "smaug-bpe",
    ((LLAMA3,), True): "llama-bpe",
    ((QWEN2,), False): "qwen2",
}
FAMILIES = "GPT-2, SmolLM, Llama 3 and Qwen 2"


def name_of(pre_tokenizer: Piece | None, ignore_merges: bool, has_merges: bool) -> str | None:
    """Return llama.cpp's name of a `pre_tokenizer`, as tokenizer.json describes it; None where it has none.

    Without merges every byte is a token, wherever a text is cut.
    """
    cuts = tuple(_cuts(pre_tokenizer))
    if "unknown" in cuts or cuts[-1:] != ("bytes",):
        return None
    return NAMES.get((cuts[:-1], ignore_merges)) if has_merges else "gpt-2"


def _cuts(piece: Piece | None) -> Iterator[str]:
    """Yield what cuts a text, in order: patterns, `digits`, at last `bytes`; `unknown` for all else."""
    kind = None if piece is None else piece["type"]
    if piece is None or kind not in ("Sequence", "Split", "Digits", "ByteLevel"):
        yield "unknown"
    elif kind == "Sequence":
        for part in piece["pretokenizers"]:
            yield from _cuts(part)
    elif kind == "Digits":
        yield "digits" if piece.get("individual_digits") else "unknown"
    elif kind == "Split":
        as_it_is = piece.get("behavior") == "Isolated" and not piece.get("invert")
        yield piece["pattern"].get("Regex", "unknown") if as_it_is else "unknown"
    elif piece.get("add_prefix_space"):
        yield "unknown"
    else:
        if piece.get("use_regex", True):
            yield GPT2[0]
        yield "bytes"
