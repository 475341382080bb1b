"""From a checkpoint made elsewhere to a folder of ours, and to Ouro's: written whole or not at all."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from transformers import GenerationConfig

from loopscale.convert.build import quietly
from loopscale.convert.folder import CONFIG, local_folder, read_config, read_safetensors
from loopscale.convert.ouro import from_ouro, to_ouro
from loopscale.convert.readout_blind_spot import is_checkpoint_file, load_readout_blind_spot
from loopscale.convert.tokenizer import read_tokenizer
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedForCausalLM
from loopscale.storage import write_json

GENERATION = "generation_config.json"


def load_ouro(folder: Path) -> LoopedForCausalLM:
    """Return the native model of an Ouro's folder (config.json and safetensors, sharded or not), in eval mode.

    Raises `InputError` where the folder holds no whole Ouro.
    """
    model = from_ouro(read_safetensors(folder), read_config(folder))
    if (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def load_native(folder: Path) -> LoopedForCausalLM:
    """Return the model of a folder of ours, in eval mode. Raises `InputError` where it holds no whole one."""
    try:
        with quietly():
            model, report = LoopedForCausalLM.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except InputError as error:
        raise InputError(f"the model in '{folder}' cannot be read: {error}") from error
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"the model in '{folder}' cannot be read: {error}") from error
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"the model in '{folder}' is not whole: weight {name} has shape {tuple(found)} where its config asks for "
            f"{tuple(expected)}."
        )
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"the model in '{folder}' is not whole: {missing[0]} is missing.")
    return model.eval()


# model_type -> how its folder becomes a native model
FOLDERS: Mapping[str, Callable[[Path], LoopedForCausalLM]] = {"loopscale": load_native, "ouro": load_ouro}


def read_as_native(source: str) -> LoopedForCausalLM:
    """Return the native model of a `.pt` file of the paper's code, a folder or a hub id, in eval mode.

    Raises `InputError` where there is none, or it has another architecture than ours.
    """
    if is_checkpoint_file(source):
        return load_readout_blind_spot(source)
    folder = local_folder(source)
    kind = read_config(folder).get("model_type", "")
    if kind not in FOLDERS:
        raise InputError(
            f"a model of type '{kind}' has no native form: convert reads {', '.join(sorted(FOLDERS))} and the paper's "
            ".pt files. Other looped models are audited and evaluated as they are."
        )
    return FOLDERS[kind](folder)


def convert_checkpoint(source: str, destination: str | Path, to: str = "native", overwrite: bool = False) -> Path:
    """Write the model at `source`, with the tokenizer beside it if there is one, to the folder `destination`.

    `to` is `native` (loads with `from_pretrained`) or `ouro` (Ouro's names; its code is not included). The folder
    appears when it is whole. Raises `InputError` for a source that cannot be read or has no such form, and for a
    destination that exists unless `overwrite` says so.
    """
    if to not in TARGETS:
        raise unknown("target", to, TARGETS)
    destination = Path(destination)
    if Path.cwd().is_relative_to(destination.resolve()):
        raise InputError(f"'{destination}' is the folder you are in, or above it: name another one to write to.")
    if destination.exists() and not overwrite:
        raise InputError(
            f"'{destination}' exists: name another folder, or pass --overwrite (overwrite=True) to replace it."
        )
    if Path(source).exists() and destination.exists() and Path(source).samefile(destination):
        raise InputError(f"'{source}' is source and destination: name another folder to write to.")
    model = read_as_native(source)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed conversion left
    try:
        partial.mkdir(parents=True)
        TARGETS[to](model, partial)
        write_tokenizer(source, partial, model.config.vocab_size)
        _replace(destination, partial)
    except OSError as error:
        raise InputError(f"cannot write '{destination}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return destination


def write_native(model: LoopedForCausalLM, folder: Path) -> None:
    """Write config and weights as `from_pretrained` reads them."""
    model.save_pretrained(folder)


def write_ouro(model: LoopedForCausalLM, folder: Path) -> None:
    """Write config and weights under Ouro's names."""
    weights, config = to_ouro(model)
    save_torch_state_dict(weights, folder)
    write_json(folder / CONFIG, config)
    model.generation_config.save_pretrained(folder)


# a target's name -> how its folder is written
TARGETS: Mapping[str, Callable[[LoopedForCausalLM, Path], None]] = {"native": write_native, "ouro": write_ouro}


def write_tokenizer(source: str, folder: Path, vocab_size: int) -> None:
    """Write the tokenizer of `source` into `folder`, if there is one. Raises `InputError` if it has more tokens."""
    try:
        tokenizer = read_tokenizer(source)
    except InputError:
        return
    if len(tokenizer) > vocab_size:
        raise InputError(f"the tokenizer of '{source}' has {len(tokenizer)} tokens, and its model {vocab_size}.")
    tokenizer.save_pretrained(folder)


def _replace(destination: Path, whole: Path) -> None:
    """Put `whole` in the place of `destination`, whose old content is there until that moment."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.is_dir():
        destination.replace(old)
    else:
        destination.unlink(missing_ok=True)
    whole.replace(destination)
    shutil.rmtree(old, ignore_errors=True)
