"""A model's configuration from a file, before there are weights."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from jsonargparse import get_loader
from yaml import YAMLError

from loopscale.errors import InputError, unknown
from loopscale.model import PRESETS, LoopedConfig


def read_config(path: Path) -> LoopedConfig:
    """Return the configuration that a YAML or JSON file describes.

    It may be a model's `config.json` (or the folder that holds it), the `run.json` of a training run, or what
    `loopscale train --config` takes: fields under `model`, on top of the `preset` it names.

    Raises `InputError` where the file cannot be read or holds something else.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        document = get_loader("yaml")(path.read_text(encoding="utf-8"))  # JSON is YAML, and 1e-3 a number
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no configuration: give fields of a model, or a run with a `model` section.")
    return _config(_model_fields(document), path)


def _model_fields(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model's fields of a run's record, a run's configuration or a model's configuration."""
    run = document.get("config", document)
    if "model" not in run and "preset" not in run:
        return run
    preset = run.get("preset")
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return {**(PRESETS[preset] if preset else {}), **(run.get("model") or {})}


def _config(values: Mapping[str, Any], path: Path) -> LoopedConfig:
    kind = values.get("model_type", LoopedConfig.model_type)
    if kind != LoopedConfig.model_type:
        raise InputError(f"{path} describes a {kind} model: only a loopscale configuration can be judged unmeasured.")
    known = {field.name for field in fields(LoopedConfig)} | {"model_type", "transformers_version"}
    for name in values:
        if name not in known:
            raise unknown(f"field of {path}", name, known)
    try:
        return LoopedConfig(**{key: value for key, value in values.items() if key != "model_type"})
    except StrictDataclassError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}.") from error
