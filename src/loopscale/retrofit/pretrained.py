"""Pretrained model to retrofit, by folder, hub id or GGUF file. No code that comes with it is run."""

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from loopscale.adapters.repairs import require_whole
from loopscale.convert import local_folder, read_config
from loopscale.convert.build import quietly
from loopscale.convert.files.checkpoint_folder import gguf_file
from loopscale.errors import InputError
from loopscale.retrofit.family import refuse


def load_pretrained(name: str) -> PreTrainedModel:
    """Return the model of a folder, a hub id or a GGUF file (dequantised), in eval mode and its weights' precision.

    Raises `InputError` where there is none, or it is of a kind that has no looped form.
    """
    gguf = gguf_file(name)
    if gguf is None:
        refuse(read_config(local_folder(name, ("config.json",))) | _described(name))
    where = {"dtype": "auto"} if gguf is None else {"dtype": "float32", "gguf_file": gguf[1]}
    try:
        with quietly():
            place = name if gguf is None else gguf[0]
            model, report = AutoModelForCausalLM.from_pretrained(
                place, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **where
            )
    except ImportError as error:
        raise InputError(
            f"'{name}' needs another package: {_first_line(error)} (pip install 'loopscale[gguf]')."
        ) from error
    except Exception as error:  # what reads a damaged file fails in a way of its own
        raise InputError(f"the model at '{name}' cannot be read: {_first_line(error)}.") from error
    require_whole(report, name)
    if gguf is not None:
        # the values are plain numbers by now, and the mark would forbid to save them
        del model.config.quantization_config
    return model.eval()


def _described(name: str) -> dict[str, Any]:
    """Return the configuration with the defaults of its kind, where transformers knows the kind."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError):  # a kind that transformers does not know: `refuse` names it
        return {}
    except Exception as error:  # values that transformers' own checks refuse
        raise InputError(f"the model at '{name}' cannot be read: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__  # its own first line names a validator, the next one what is wrong
    return str(error).strip().partition("\n")[0].rstrip(".:")
