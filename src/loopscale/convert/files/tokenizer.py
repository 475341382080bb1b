"""Tokenizer of a checkpoint, wherever it lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from loopscale.convert.build import quietly
from loopscale.convert.files.checkpoint_folder import gguf_file, local_folder
from loopscale.convert.files.weights import TORCH_ENDINGS, is_weight_file, read_torch
from loopscale.convert.readout_blind_spot import is_paper_checkpoint
from loopscale.data import words_tokenizer
from loopscale.data.tokenization import WORDS_PATTERN, WORDS_UNKNOWN
from loopscale.errors import InputError

TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
PAPER_PAD = "<pad>"


def read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder, a hub id, a GGUF file, a `.pt` of the paper's code, or beside other weights.

    No code of a checkpoint is run.

    Raises `InputError` where there is none.
    """
    if (gguf := gguf_file(name)) is not None:
        return _of_gguf(name, *gguf)
    if is_weight_file(name):
        if Path(name).suffix in TORCH_ENDINGS and is_paper_checkpoint(content := read_torch(name)):
            try:
                return paper_tokenizer(content.get("tokenizer"), name)
            except (AttributeError, TypeError) as error:  # whatever lies in the file
                raise InputError(f"the tokenizer in '{name}' is not one of the paper's code: {error}.") from error
        name = str(Path(name).parent)
    folder = local_folder(name, TOKENIZER_FILES)
    try:
        # the tokenizer's own files say what it is; a config of a kind that transformers does not know would not
        return AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig(), trust_remote_code=False)
    except (OSError, ValueError, HFValidationError) as error:
        raise InputError(f"no tokenizer beside the model at '{name}': save one there with save_pretrained.") from error
    except Exception as error:  # what reads a damaged file fails in a way of its own
        raise InputError(
            f"the tokenizer beside the model at '{name}' cannot be read ({error}): bring its files back."
        ) from error


def _of_gguf(name: str, place: str, file: str) -> PreTrainedTokenizerBase:
    try:
        with quietly():
            return AutoTokenizer.from_pretrained(place, gguf_file=file, trust_remote_code=False)
    except ImportError as error:
        raise InputError(f"a GGUF file is read by another package: pip install 'loopscale[gguf]' ({error}).") from error
    except Exception as error:  # what reads a damaged file fails in a way of its own
        raise InputError(f"the tokenizer in '{name}' cannot be read: {error}.") from error


def paper_tokenizer(state: Mapping[str, Any] | None, name: str) -> PreTrainedTokenizerBase:
    """Return the regex tokenizer that the paper's code saved: `kind`, `itos` (the words by id) and `pattern`.

    Its `<bos>` and `<eos>` stay plain words: that code never writes them into its training text.
    Raises `InputError` for another kind or pattern.
    """
    if not state:
        raise InputError(f"no tokenizer in '{name}'.")
    words, kind, pattern = state.get("itos"), state.get("kind"), state.get("pattern")
    if kind != "regex" or pattern != WORDS_PATTERN.pattern:
        raise InputError(
            f"the tokenizer in '{name}' is of kind '{kind}' with the pattern '{pattern}': only the paper's, "
            f"'{WORDS_PATTERN.pattern}', is known."
        )
    if not isinstance(words, list) or not {PAPER_PAD, WORDS_UNKNOWN} <= set(words):
        raise InputError(f"the tokenizer in '{name}' has no list of words with {PAPER_PAD} and {WORDS_UNKNOWN}.")
    return words_tokenizer(words, pad_token=PAPER_PAD)
