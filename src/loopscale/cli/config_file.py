"""A model's configuration from a file, before there are weights."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import get_loader
from yaml import YAMLError

from loopscale.cli.parser import Parser
from loopscale.cli.run_arguments import add_run_arguments, run_config
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig
from loopscale.train import RunConfig

RUN_PARTS = {"preset", "model", "data", "train"}


def read_config(path: Path) -> tuple[LoopedConfig, float | None]:
    """Return the configuration that a YAML or JSON file describes, and the scale that its training would hold, if any.

    It may be a model's `config.json` (or the folder that holds it), the `run.json` of a training run, or what
    `loopscale train --config` takes.

    Raises `InputError` where the file cannot be read or holds something else, as `train` does.
    """
    path = path / "config.json" if path.is_dir() else path
    document = _document(path)
    if RUN_PARTS & document.keys():
        parser = Parser(prog="loopscale train")
        add_run_arguments(parser)
        parser.add_argument("--out", type=str)
        run = run_config(parser.read(["--config", str(path)]), "")
    elif isinstance(document.get("config"), dict):
        run = RunConfig.from_dict(document["config"])
    else:
        return _model_config(document, path), None
    return run.model_config(None), run.train.scale_target


def _document(path: Path) -> dict[str, Any]:
    try:
        document = get_loader("yaml")(path.read_text(encoding="utf-8"))  # JSON is YAML, and 1e-3 a number
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise InputError(f"{path} holds no configuration: give fields of a model, or a run with a `model` section.")
    return document


def _model_config(values: Mapping[str, Any], path: Path) -> LoopedConfig:
    kind = values.get("model_type", LoopedConfig.model_type)
    if kind != LoopedConfig.model_type:
        raise InputError(f"{path} describes a {kind} model: only a loopscale configuration can be judged unmeasured.")
    known = {field.name for field in fields(LoopedConfig)} | {"model_type", "transformers_version"}
    for name in values:
        if name not in known:
            raise unknown(f"field of {path}", name, known)
    try:
        return LoopedConfig.from_dict(dict(values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
