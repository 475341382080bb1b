"""The arguments of a training run, shared by `train` and `reproduce`: a preset, then --model.*, --data.*, --train.*."""

from collections.abc import Mapping
from typing import Any

import docstring_parser
from jsonargparse import Namespace

from loopscale.cli.parser import Parser
from loopscale.errors import InputError
from loopscale.model import LoopedConfig
from loopscale.train import MODEL_FIELDS, RUNS, DataConfig, RunConfig, TrainConfig, preset_run

DERIVED = ("trained_loops",)
EXAMPLES = {"model": "{readout: raw}", "data": "{corpus: stdlib}", "train": "{seed: 1}"}


def add_run_arguments(parser: Parser) -> None:
    """Add --preset, --config, --print_config and every field of a run."""
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("--preset", type=str, default="laptop", help=f"size and protocol: {', '.join(RUNS)}")
    said = {param.arg_name: param.description for param in docstring_parser.parse(LoopedConfig.__doc__ or "").params}
    for field in MODEL_FIELDS:
        if field.name not in DERIVED:
            parser.add_argument(f"--model.{field.name}", type=field.type, default=field.default, help=said[field.name])
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(TrainConfig, "train")
    parser.defaults_from = preset_defaults


def preset_defaults(args: Namespace) -> Mapping[str, Any]:
    """Return the preset's values under their option names."""
    run = preset_run(args.preset).to_dict()
    return {f"{part}.{key}": value for part in ("model", "data", "train") for key, value in run[part].items()}


def run_config(args: Namespace, out: str) -> RunConfig:
    """Return the run that the arguments describe; fields of the model at their default are left out.

    Raises `InputError` where a part of it is no group of fields, or they do not fit together.
    """
    for part in ("model", "data", "train"):
        if not isinstance(args[part], Namespace):
            raise InputError(f"{part} is {args[part]!r}: give its fields, for instance {part}: {EXAMPLES[part]}.")
    defaults = {field.name: field.default for field in MODEL_FIELDS}
    model = {key: value for key, value in args.model.as_dict().items() if value != defaults[key]}
    return RunConfig(model, DataConfig(**args.data.as_dict()), TrainConfig(**args.train.as_dict()), args.preset, out)
