"""A looped model by folder or hub id, whoever made it."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM


def load_model(name: str, num_loops: int | None = None) -> LoopedForCausalLM:
    """Return the model of a folder or hub id, in eval mode, with another depth if `num_loops` says so.

    Raises `InputError` where nothing is there, or where it is not a looped model this library knows.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no model at '{name}': give a folder that holds config.json and weights, or a hub id that can be reached."
        ) from error
    if config.model_type != "loopscale":
        raise InputError(f"'{name}' is a {config.model_type} model: not one this library can run as a looped model.")
    depth = {} if num_loops is None else {"num_loops": num_loops}
    return AutoModelForCausalLM.from_pretrained(name, **depth).eval()


def load_tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer saved beside a model.

    Raises `InputError` where there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"no tokenizer beside the model at '{name}': save one there with save_pretrained.") from error
