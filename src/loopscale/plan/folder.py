"""Folder of a model as the run that a plan is made of: what it was trained by, or a preset with its sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from loopscale.errors import InputError
from loopscale.model import LoopedConfig
from loopscale.model.config import OF_ODD_VALUES
from loopscale.train import MODEL_FIELDS, RunConfig, preset_run, read_run


def run_of_folder(name: str, preset: str) -> RunConfig:
    """Return the run of a folder with a run.json, or a preset's with the sizes of a config.json (folder or hub id).

    Raises `InputError` where there is neither, or the model is no native one.
    """
    folder = Path(name)
    begun = read_run(folder) if (folder / "run.json").is_file() else None
    if begun is not None and not (folder / "config.json").is_file():
        return begun
    try:
        config: Any = AutoConfig.from_pretrained(name)
    except InputError as error:
        raise InputError(f"the model in '{name}': {error}") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} has no config.json of a model: name a folder, or a hub id that can be read."
        ) from error
    except (StrictDataclassError, *OF_ODD_VALUES) as error:
        raise InputError(
            f"the model in '{name}' has a config.json that cannot be read: {error.__cause__ or error}."
        ) from error
    if not isinstance(config, LoopedConfig):
        raise InputError(f"{name} is a {config.model_type} model: convert it, or plan by its sizes (--model.*).")
    own = {f.name: getattr(config, f.name) for f in MODEL_FIELDS if f.name != "trained_loops"}
    if begun is not None:
        return replace(begun, model={**begun.model, **own})
    run = preset_run(preset)
    length = min(run.data.sequence_length, config.max_position_embeddings)
    return replace(run, model=own, data=replace(run.data, tokenizer=name, sequence_length=length))
