"""Conversion of a checkpoint made elsewhere to a folder of ours, and of ours to other forms, whole or not at all."""

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig

from loopscale.convert.build import build_config, build_model, quietly
from loopscale.convert.destination import check_destination, written_whole
from loopscale.convert.files.checkpoint_folder import CONFIG, DATA_FILES, kind_of_config, local_folder, read_config
from loopscale.convert.files.prefixes import plain_names
from loopscale.convert.files.tokenizer import read_tokenizer
from loopscale.convert.files.weights import (
    INDEX,
    TORCH_ENDINGS,
    WEIGHTS,
    check_whole,
    is_weight_file,
    read_torch,
    read_weights,
    weight_files,
)
from loopscale.convert.huginn import from_huginn, to_huginn
from loopscale.convert.nanbeige import from_nanbeige, to_nanbeige
from loopscale.convert.ouro import from_ouro, to_ouro
from loopscale.convert.parcae import from_parcae, to_parcae
from loopscale.convert.readout_blind_spot import is_paper_checkpoint, model_of_checkpoint
from loopscale.data import vocabulary_size
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.config import OF_ODD_VALUES, odd_values_told
from loopscale.model.size import require_room
from loopscale.model_card import CARD, Known, hub_id, named
from loopscale.storage import write_json

logger = logging.getLogger(__name__)

GENERATION = "generation_config.json"
PARCAE_WEIGHTS = ("pytorch_model.bin", "model.pt")


def load_ouro(folder: Path, file: Path | None = None) -> LoopedForCausalLM:
    """Return the native model of an Ouro's folder (config.json and weights, sharded or not), in eval mode.

    `file` holds its weights where they are in one of another name. Raises `InputError` where there is no whole Ouro.
    """
    return _converted(from_ouro, folder, file)


def load_huginn(folder: Path, file: Path | None = None) -> LoopedForCausalLM:
    """Return the native model of a Huginn's folder, in eval mode, from its weights or those of `file`.

    Raises `InputError` where there is no whole Huginn, or one with options that are not followed.
    """
    return _converted(from_huginn, folder, file)


def load_nanbeige(folder: Path, file: Path | None = None) -> LoopedForCausalLM:
    """Return the native model of a Nanbeige's folder, in eval mode, from its weights or those of `file`.

    Raises `InputError` where there is no whole Nanbeige, or one with more than looped layers.
    """
    return _converted(from_nanbeige, folder, file)


def _converted(convert: Callable[..., LoopedForCausalLM], folder: Path, file: Path | None) -> LoopedForCausalLM:
    """Return the native model of a folder of another kind, with the generation settings that lie there."""
    weights, config = read_weights(weight_files(folder) if file is None else [file]), read_config(folder)
    with odd_values_told(f"the model in '{folder}' has a config.json that no model can be made of"):
        model = convert(weights, config)
    if (folder / GENERATION).is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder)
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"'{folder / GENERATION}' cannot be read: {error}") from error
    return model


def load_native(folder: Path, file: Path | None = None) -> LoopedForCausalLM:
    """Return the model of a folder of ours, in eval mode. Raises `InputError` where it holds no whole one.

    `file` holds its weights where they are in one of another name.
    """
    source = f"the model in '{folder}'"
    config = build_config(read_config(folder), source)
    require_room(config, source)
    files = weight_files(folder) if file is None else [file]
    for path in files:
        check_whole(path)
    if file is None and (folder / WEIGHTS in files or (folder / INDEX).is_file()):
        model, surplus = _pretrained(folder)
        if not surplus:
            return model
    weights = plain_names(read_weights(files), "model.embed_tokens.weight", source)
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return build_model(config, weights, source)


def _pretrained(folder: Path) -> tuple[LoopedForCausalLM, list[str]]:
    """Return the model as transformers reads it, and the names of weights that have no place in it."""
    try:
        with quietly():
            model, report = LoopedForCausalLM.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, RuntimeError, SafetensorError, *OF_ODD_VALUES) as error:
        raise InputError(f"the model in '{folder}' cannot be read: {str(error).rstrip('.')}.") from error
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"the model in '{folder}' is not whole: weight {name} has shape {tuple(found)} where its config asks for "
            f"{tuple(expected)}."
        )
    surplus = sorted(report["unexpected_keys"])
    if not surplus and (missing := sorted(report["missing_keys"])):
        raise InputError(f"the model in '{folder}' is not whole: {missing[0]} is missing.")
    return model.eval(), surplus


Form = Callable[[LoopedForCausalLM], tuple[dict[str, Tensor], dict[str, Any]]]
FolderLoader = Callable[[Path, Path | None], LoopedForCausalLM]

# model_type -> how its folder becomes a native model
FOLDERS: Mapping[str, FolderLoader] = {
    "huginn_raven": load_huginn,
    "loopscale": load_native,
    "nanbeige": load_nanbeige,
    "ouro": load_ouro,
    "ParcaeConfig": partial(_converted, from_parcae),
}


def read_as_native(source: str) -> LoopedForCausalLM:
    """Return the native model of a file of weights, a folder or a hub id, in eval mode.

    Raises `InputError` where there is none, or it has another architecture than ours.
    """
    if is_weight_file(source):
        return load_weight_file(source)
    folder = checkpoint_of(source, kind_of_config(read_config(local_folder(source, (CONFIG,)))))
    return _loader(folder)(folder, None)


def checkpoint_of(source: str, kind: str) -> Path:
    """Return the folder of a checkpoint of that kind, whose files are downloaded if they are not here yet."""
    return local_folder(source, ("*.json", *PARCAE_WEIGHTS) if kind == "ParcaeConfig" else DATA_FILES)


def load_weight_file(name: str) -> LoopedForCausalLM:
    """Return the native model of one file of weights: the paper's `.pt`, or any with its config.json beside it."""
    path = Path(name)
    if path.suffix in TORCH_ENDINGS and is_paper_checkpoint(content := read_torch(path)):
        return model_of_checkpoint(content, name)
    if not path.is_file():
        raise InputError(f"no file of weights at '{name}': give one, a folder or a hub id.")
    if not (path.parent / CONFIG).is_file():
        raise InputError(f"no {CONFIG} beside '{name}', which says of what model these weights are: put it there.")
    return _loader(path.parent)(path.parent, path)


def _loader(folder: Path) -> FolderLoader:
    kind = kind_of_config(read_config(folder))
    if kind not in FOLDERS:
        raise InputError(
            f"a model of type '{kind}' has no native form: convert reads {', '.join(sorted(FOLDERS))} and the paper's "
            ".pt files. Other looped models are audited and evaluated as they are; `loopscale retrofit` makes one of a "
            "pretrained Llama and its like."
        )
    return FOLDERS[kind]


def convert_checkpoint(
    source: str, destination: str | Path, to: str = "native", overwrite: bool = False, *, auto_map: bool = False
) -> Path:
    """Write the model at `source`, with the tokenizer beside it if there is one, to the folder `destination`.

    `to` is `native` (loads with `from_pretrained`), `huginn`, `nanbeige`, `ouro` or `parcae` (their names; their code
    is not included). `auto_map`: a native folder gets the file by which `trust_remote_code=True` loads it without an
    import. The folder appears when it is whole. Raises `InputError` for a source that cannot be read or has
    no such form, and for a destination that exists unless `overwrite` says so.
    """
    if to not in TARGETS:
        raise unknown("target", to, TARGETS)
    if auto_map and to != "native":
        raise InputError(f"--auto_map is for folders of ours: leave it out, or leave out --to {to}.")
    destination = Path(destination)
    check_destination(source, destination, overwrite)
    model = read_as_native(source)
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        logger.warning("weights of '%s' are not finite (%s): nothing it computes will be", source, broken[0])
    with written_whole(destination) as folder:
        if to == "native":
            write_native(model, folder, auto_map)
            _write_card(model, source, folder)
        else:
            TARGETS[to](model, folder)
        write_tokenizer(source, folder, model.config.vocab_size)
    return destination


def _write_card(model: LoopedForCausalLM, source: str, folder: Path) -> None:
    """Write the model card: that of a folder of ours goes with its weights."""
    there = Path(source) / CARD
    if there.is_file() and kind_of_config(read_config(Path(source))) == LoopedConfig.model_type:
        shutil.copyfile(there, folder / CARD)
    else:
        model.write_card(folder, Known(made_from=named(source), base_model=hub_id(source)))


def write_native(model: LoopedForCausalLM, folder: Path, auto_map: bool = False) -> None:
    """Write config and weights as `from_pretrained` reads them."""
    model.save_pretrained(folder, auto_map=auto_map or None)


def write_parcae(model: LoopedForCausalLM, folder: Path) -> None:
    """Write config and weights as `parcae_lm.save_pretrained` does."""
    weights, config = to_parcae(model)
    torch.save(weights, folder / PARCAE_WEIGHTS[-1])
    write_json(folder / CONFIG, config)
    model.generation_config.save_pretrained(folder)  # ids of tokens, which a Parcae's config has no place for


def _written(form: Form, model: LoopedForCausalLM, folder: Path) -> None:
    """Write config and weights under the names of another form."""
    weights, config = form(model)
    save_torch_state_dict(weights, folder)
    write_json(folder / CONFIG, config)
    model.generation_config.save_pretrained(folder)


# a target's name -> how its folder is written
TARGETS: Mapping[str, Callable[[LoopedForCausalLM, Path], None]] = {
    "huginn": partial(_written, to_huginn),
    "native": write_native,
    "nanbeige": partial(_written, to_nanbeige),
    "ouro": partial(_written, to_ouro),
    "parcae": write_parcae,
}


def write_tokenizer(source: str, folder: Path, vocab_size: int) -> None:
    """Write the tokenizer of `source` into `folder`, if one can be read; else say so.

    Raises `InputError` if it has more tokens than the model.
    """
    try:
        tokenizer = read_tokenizer(source)
    except InputError as error:
        logger.warning("written without a tokenizer: %s", error)
        return
    if (needed := vocabulary_size(tokenizer)) > vocab_size:
        raise InputError(f"the tokenizer of '{source}' has ids up to {needed - 1}, and its model {vocab_size} rows.")
    tokenizer.save_pretrained(folder)
