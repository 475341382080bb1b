"""Options that commands share: the model and the text, and those of a run, the fields of its configuration.

To import the configuration takes seconds. So help, and a misspelt name, are answered by what its source declares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, final

from jsonargparse import Namespace

from loopscale.cli.parser import HELP, ConfigFile, Parser
from loopscale.errors import unknown
from loopscale.system.declarations import declarations

# a part of a run -> the file, below the package, and the class that hold its fields
PARTS = {
    "model": ("model/config.py", "LoopedConfig"),
    "data": ("train/config.py", "DataConfig"),
    "train": ("train/config.py", "TrainConfig"),
}
PRESETS = "model/presets.py"
DERIVED = ("trained_loops",)
Values = Mapping[str, Mapping[str, Any]]  # of every part


@final
@dataclass(frozen=True)
class Settings:
    """What a run is configured by: the class of each part, and the values of a named size."""

    classes: Mapping[str, Any]
    presets: Sequence[str]
    values_of: Callable[[str], Values]

    def names(self) -> list[str]:
        """Return the options of every part."""
        derived = {f"--model.{name}" for name in DERIVED}
        return [
            name
            for part, kind in self.classes.items()
            for f in fields(kind)
            if f.name in kind.__annotations__ and (name := f"--{part}.{f.name}") not in derived
        ]

    def defaults(self, args: Namespace) -> Mapping[str, Any]:
        """Return the preset's values under their option names."""
        return _flat(self.values_of(args.preset))


def add_run_arguments(parser: Parser, words: Sequence[str]) -> None:
    """Add --preset, --config, --print_config and every field of a run, after a look at the `words`."""
    declared = written()
    if declared is not None:
        light = {"--preset", "--config", "--print_config", *(f"--{part}" for part in PARTS)}
        names = declared.names()
        parser.refuse_unknown(words, {*light, *names, *(f"{name}+" for name in names)})
    settings = imported() if declared is None or not set(HELP) & set(words) else declared
    import docstring_parser

    model = settings.classes["model"]
    said = {param.arg_name: param.description for param in docstring_parser.parse(model.__doc__ or "").params}
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    parser.add_argument(
        "--preset", type=str, default="laptop", help=f"size and protocol: {', '.join(settings.presets)}"
    )
    for field in fields(model):
        if field.name in model.__annotations__ and field.name not in DERIVED:
            parser.add_argument(f"--model.{field.name}", type=field.type, default=field.default, help=said[field.name])
    for part in ("data", "train"):
        parser.add_class_arguments(settings.classes[part], part)
    parser.defaults_from = settings.defaults


def imported() -> Settings:
    """Return the settings that a run is made of."""
    from loopscale.model import LoopedConfig
    from loopscale.train import RUNS, DataConfig, TrainConfig, preset_run

    classes = {"model": LoopedConfig, "data": DataConfig, "train": TrainConfig}
    return Settings(classes, tuple(RUNS), lambda name: preset_run(name).to_dict())


def written() -> Settings | None:
    """Return the same as the sources declare it, without its checks; None where there are no sources."""
    files = {file: declarations(file) for file in (PRESETS, *(file for file, _ in PARTS.values()))}
    classes = {part: files[file].get(name) for part, (file, name) in PARTS.items()}
    runs, sizes = files["train/config.py"].get("RUNS"), files[PRESETS].get("PRESETS")
    if None in classes.values() or runs is None or sizes is None:
        return None

    def values_of(name: str) -> Values:
        if name not in runs:
            raise unknown("preset", name, runs)
        data, train = map(asdict, runs[name])
        fitted = data["tokenizer"] == "words"  # as `preset_run` has it; a test holds one against the other
        model = {key: value for key, value in sizes[name].items() if key != "vocab_size" or fitted}
        return {"model": model, "data": data, "train": train}

    return Settings(classes, tuple(runs), values_of)


def starting(preset: Callable[[Namespace], Mapping[str, Any]]) -> Callable[[Namespace], Mapping[str, Any]]:
    """Return defaults that are the preset's, but sizes, parts and tokenizer of the model that a run starts from."""

    def defaults(args: Namespace) -> Mapping[str, Any]:
        if args.init_from is None:
            return preset(args)
        from loopscale.train import run_from

        return _flat(run_from(args.init_from, args.preset).to_dict())

    return defaults


def add_plan_arguments(parser: Parser) -> None:
    """Add on what, for how long and at what price a run is planned."""
    parser.add_argument("folder", type=str | None, nargs="?", help="a run or a model (folder or hub id): its sizes")
    parser.add_argument("--tokens", type=float | None, help="of the whole training (default: what max_steps reads)")
    parser.add_argument("--devices", type=int, default=1, help="how many train one run together")
    parser.add_argument(
        "--device", type=str, default="h100", help="a100, h100, h200, b200, l40s, rtx4090, mi300x, or cpu: this machine"
    )
    parser.add_argument("--memory_gib", type=float | None, help="of one device, in place of the known one")
    parser.add_argument("--peak_tflops", type=float | None, help="in bf16 of one device, in place of the known one")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak that a step reaches")
    parser.add_argument("--price", type=float | None, help="of one device for an hour")
    parser.add_argument("--json", type=str | None, help="write every figure to this file")


def of_folder(preset: Callable[[Namespace], Mapping[str, Any]]) -> Callable[[Namespace], Mapping[str, Any]]:
    """Return defaults that are the preset's, or those of the run or model in the folder that a plan names."""

    def defaults(args: Namespace) -> Mapping[str, Any]:
        if args.folder is None:
            return preset(args)
        from loopscale.plan import run_of_folder

        return _flat(run_of_folder(args.folder, args.preset).to_dict())

    return defaults


def _flat(values: Values) -> Mapping[str, Any]:
    return {f"{part}.{key}": value for part in PARTS for key, value in values[part].items()}


def add_model_arguments(parser: Parser) -> None:
    """Add how a model is loaded and where it runs."""
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda if there")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that comes with a checkpoint")


def add_text_arguments(parser: Parser) -> None:
    """Add the text, how it becomes tokens, and the length of a window; each by default as in training."""
    parser.add_argument("--corpus", type=str | None, help="name or path of the text (default: the run's, else stdlib)")
    parser.add_argument("--split", type=str | None, help="valid (the default), train, or all for the whole text")
    parser.add_argument("--text_field", type=str | None, help="field of its rows that holds the text (as in the run)")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one saved beside the model")
    parser.add_argument(
        "--sequence_length", type=int | None, help="default: the run's, else the model's positions, at most 256"
    )
