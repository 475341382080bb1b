"""Weights that a run starts from, and what it leaves for inference: ids that its model knows, its tokenizer."""

import hashlib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from transformers import PreTrainedTokenizerFast

from loopscale.data import Data
from loopscale.data.encoding import end_of_text
from loopscale.errors import InputError
from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.system.provenance import provenance
from loopscale.train.config import MODEL_FIELDS, RunConfig, preset_run


def new_model(config: RunConfig, data: Data) -> LoopedForCausalLM:
    """Return the run's model with weights from its seed, which knows the tokenizer's ids."""
    size = None if "vocab_size" in config.model else data.vocab_size
    described = config.model_config(size)
    for name, token in special_ids(data.tokenizer).items():
        if getattr(described, name) is None:
            setattr(described, name, token)
    model = LoopedForCausalLM(described)
    data.require_vocabulary(model.config.vocab_size)
    return model


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """Return the ids of beginning, end and padding that a model trained with this tokenizer knows.

    The end is the one that follows every document of the training text, if one does. Padding is the tokenizer's own
    token, else the end: an id that no padding needs is given to none.
    """
    end = end_of_text(tokenizer)
    pad = tokenizer.pad_token_id
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end,
        "pad_token_id": end if pad is None else pad,
    }


def inference_tokenizer(tokenizer: PreTrainedTokenizerFast, positions: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer as it lies beside a model: it pads on the left, by an id it has, and knows the length.

    A tokenizer without a padding token gets no new one, for which the model would have no row: the end of text or the
    unknown word stands in, behind the mask that a padded batch comes with.
    """
    saved = deepcopy(tokenizer)
    saved.padding_side, saved.model_max_length = "left", positions
    saved.backend_tokenizer.no_padding()
    saved.backend_tokenizer.no_truncation()
    if saved.pad_token is None:
        stand_ins = [saved.eos_token, saved.unk_token, *saved.all_special_tokens]
        saved.pad_token = next((token for token in stand_ins if token is not None), None)
    if saved.pad_token is None:
        saved.pad_token, saved.split_special_tokens = saved.convert_ids_to_tokens(0), True  # it stays a word of texts
    # what is saved is what it was made with
    saved.init_kwargs |= {name: getattr(saved, name) for name in ("padding_side", "split_special_tokens")}
    return saved


def run_from(name: str, preset: str) -> RunConfig:
    """Return a preset's run with the sizes, parts and tokenizer of a model whose weights it is to start from."""
    run, config = preset_run(preset), GivenWeights(name).model.config
    own = {f.name: getattr(config, f.name) for f in MODEL_FIELDS if f.name != "trained_loops"}
    data = replace(run.data, sequence_length=min(run.data.sequence_length, config.max_position_embeddings))
    before = provenance(name)
    if before is not None and before.tokenizer == "bytes":
        data = replace(data, tokenizer="bytes")
    elif (Path(name) / "tokenizer.json").is_file():
        data = replace(data, tokenizer=name)
    return replace(run, model=own, data=data, init_from=name)


@final
class GivenWeights:
    """The model that a run starts from, by folder, file or hub id, and the hash of its weights."""

    def __init__(self, name: str) -> None:
        self.name = name
        model = load_model(name)
        if not isinstance(model, LoopedForCausalLM):
            raise InputError(f"--init_from {name}: a {type(model).__name__} has no weights for a native model.")
        self.model = model

    @property
    def sha256(self) -> str:
        """SHA-256 of every weight, by name."""
        hashed = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            hashed.update(name.encode())
            hashed.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()

    def require_tokenizer(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Raise `InputError` if these weights know other tokens than the run's, where a tokenizer lies beside them."""
        try:
            theirs: Any = load_tokenizer_of(self.name)
        except InputError:
            return
        if theirs.get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"--init_from {self.name} was trained with another tokenizer ({len(theirs)} ids, this run's has "
                f"{len(tokenizer)}): give --data.tokenizer {self.name}."
            )

    def put_into(self, model: LoopedForCausalLM) -> None:
        """Copy the weights. Raises `InputError` that names the sizes that differ."""
        theirs, ours = self.model.state_dict(), model.state_dict()
        if {n: w.shape for n, w in theirs.items()} != {n: w.shape for n, w in ours.items()}:
            differing = [
                f"model.{f.name} is {getattr(model.config, f.name)} here and {getattr(self.model.config, f.name)} there"
                for f in MODEL_FIELDS
                if getattr(model.config, f.name) != getattr(self.model.config, f.name)
            ]
            raise InputError(f"--init_from {self.name} has weights of other sizes: {'; '.join(differing)}.")
        model.load_state_dict(theirs)
