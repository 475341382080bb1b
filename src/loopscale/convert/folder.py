"""A checkpoint folder, here or on the hub: its config and its safetensors, read as data and never run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loopscale.data.progress import progress_when_slow
from loopscale.errors import InputError
from loopscale.storage import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# what a checkpoint of safetensors is made of besides code, which is never fetched
DATA_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class ShardIndex:
    """The index of a sharded checkpoint: the file that holds each tensor."""

    weight_map: Mapping[str, str]


def local_folder(name: str, files: Sequence[str] = DATA_FILES) -> Path:
    """Return the folder `name`, or that of the hub id `name`, whose `files` are downloaded if they are not here yet.

    Raises `InputError` where neither can be had.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HFValidationError, HfHubHTTPError, OSError) as error:  # OSError: no network, or told to stay offline
        raise InputError(
            f"no model at '{name}': give a folder that holds config.json and weights, or a hub id that can be reached."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json. Raises `InputError` where there is none, or no JSON object in it."""
    if not (folder / CONFIG).exists():
        raise InputError(f"no {CONFIG} in '{folder}': it is not a model's folder.")
    return read_json(folder / CONFIG, dict[str, Any], "bring back the file that came with the weights")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the folder, one or those its index names.

    Raises `InputError` where a file is missing or the index points out of the folder.
    """
    if not (folder / INDEX).is_file():
        names = {WEIGHTS}
    else:
        names = set(read_json(folder / INDEX, ShardIndex, "give the index of a sharded checkpoint").weight_map.values())
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"'{folder}' is not a whole checkpoint of safetensors: {name} is missing.")
    return [folder / name for name in sorted(names)]


def read_safetensors(folder: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Return every tensor of the folder's safetensors, with a progress bar where that is slow.

    Raises `InputError` where a file is missing or broken.
    """
    files = weight_files(folder)
    sizes = [path.stat().st_size for path in files]
    weights: dict[str, Tensor] = {}
    with progress_when_slow("reading weights", sum(sizes)) as advance:
        for path, size in zip(files, sizes, strict=True):
            try:
                with safe_open(path, framework="pt") as tensors:
                    weights |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
            except SafetensorError as error:
                raise InputError(f"'{path}' is broken: {error}") from error
            advance(size)
    return weights
