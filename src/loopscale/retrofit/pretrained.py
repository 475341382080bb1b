"""Source of a retrofit: a pretrained model and its tokenizer by folder, hub id or GGUF file, without its code."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from loopscale.convert import local_folder, read_config, read_tokenizer
from loopscale.convert.build import quietly
from loopscale.errors import InputError
from loopscale.retrofit.family import refuse

GGUF = ".gguf"
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, HFValidationError, SafetensorError)


def load_pretrained(name: str) -> PreTrainedModel:
    """Return the model of a folder, a hub id or a GGUF file (dequantised), in eval mode and its weights' precision.

    Raises `InputError` where there is none, or it is of a kind that has no looped form.
    """
    where: dict[str, Any] = _gguf(name) or {"pretrained_model_name_or_path": name, "dtype": "auto"}
    if "gguf_file" not in where:
        refuse(read_config(local_folder(name, ("config.json",))) | _described(name))
    try:
        with quietly():
            model = AutoModelForCausalLM.from_pretrained(**where, trust_remote_code=False)
    except ImportError as error:
        raise InputError(
            f"'{name}' needs another package: {_first_line(error)} (pip install 'loopscale[gguf]')."
        ) from error
    except UNREADABLE as error:
        raise InputError(f"the model at '{name}' cannot be read: {_first_line(error)}.") from error
    if "gguf_file" in where:
        # the values are plain numbers by now, and the mark would forbid to save them
        del model.config.quantization_config
    return model.eval()


def load_pretrained_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer beside that model, or in its GGUF file. Raises `InputError` where there is none."""
    where = _gguf(name)
    if where is None:
        return read_tokenizer(name)
    where.pop("dtype")
    try:
        with quietly():
            return AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except (ImportError, *UNREADABLE) as error:
        raise InputError(f"no tokenizer in '{name}' that can be read: {_first_line(error)}.") from error


def _gguf(name: str) -> dict[str, Any] | None:
    """Return how transformers is asked for a GGUF file, here or in a hub repository; None for another name."""
    if not name.endswith(GGUF):
        return None
    path = Path(name)
    if not path.is_file() and len(path.parts) != 3:
        raise InputError(f"no GGUF file at '{name}': give the path of one, or OWNER/REPOSITORY/FILE.gguf on the hub.")
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "dtype": "float32"}


def _described(name: str) -> dict[str, Any]:
    """Return the configuration with the defaults of its kind, where transformers knows the kind."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except UNREADABLE:
        return {}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".:")
