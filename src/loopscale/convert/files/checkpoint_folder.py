"""Folder of a checkpoint, here or on the hub, and its config, read as data and never run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from loopscale.errors import InputError
from loopscale.storage import read_json

CONFIG = "config.json"
GGUF = ".gguf"  # llama.cpp's format
HUB_PARTS = 3  # owner, repository, file
# what a checkpoint of safetensors is made of besides code, which is never fetched
DATA_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def local_folder(name: str, files: Sequence[str] = DATA_FILES) -> Path:
    """Return the folder `name`, or that of the hub id `name`, whose `files` are downloaded if they are not here yet.

    Raises `InputError` where neither can be had.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        kind = "in llama.cpp's format" if name.endswith(".gguf") else "no file of weights that is read here"
        raise InputError(f"'{name}' is {kind}: give the folder that holds config.json and the weights.")
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HFValidationError, HfHubHTTPError, OSError) as error:  # OSError: no network, or told to stay offline
        raise InputError(
            f"no model at '{name}': give a folder that holds config.json and weights, or a hub id that can be reached."
        ) from error


def gguf_file(name: str) -> tuple[str, str] | None:
    """Return where a GGUF file lies, a folder or a hub repository, and its name; None for the name of anything else.

    Raises `InputError` where it is neither here nor in a repository.
    """
    if not name.endswith(GGUF):
        return None
    path = Path(name)
    if not path.is_file() and len(path.parts) != HUB_PARTS:
        raise InputError(f"no GGUF file at '{name}': give the path of one, or OWNER/REPOSITORY/FILE.gguf on the hub.")
    return str(path.parent), path.name


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json. Raises `InputError` where there is none, or no JSON object in it."""
    if not (folder / CONFIG).exists():
        raise InputError(f"no {CONFIG} in '{folder}': {_what_is_there(folder)}.")
    return read_json(folder / CONFIG, dict[str, Any], "bring back the file that came with the weights")


def kind_of_config(config: Mapping[str, Any]) -> str:
    """Return the kind of model that a config.json names: transformers' `model_type`, or the class that wrote it."""
    return str(config.get("model_type") or config.get("_class_name") or "")


def _diverged(folder: Path) -> dict[str, Any] | None:
    """Return at which step and how the run of a folder diverged, as its training.json says; None where none did."""
    try:
        said = read_json(folder / "training.json", dict[str, Any])["diverged"]
        return {"step": int(said["step"]), "what": str(said["what"])}
    except (ValueError, KeyError, TypeError):
        return None


def _what_is_there(folder: Path) -> str:
    """Return in words what a folder is that is no model's, and what to do with it."""
    names = {path.name for path in folder.iterdir()}
    inner = sorted(path.relative_to(folder) for path in [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")])
    if not names:
        return "it is empty"
    if diverged := _diverged(folder):
        kept = f"; what it kept last is '{folder / inner[-1].parent}'" if inner else ""
        return f"its training diverged at step {diverged['step']} ({diverged['what']} is not finite){kept}"
    if "adapter_config.json" in names:
        return "it holds adapters of another model; merge them into it (merge_and_unload) and save that"
    if gguf := sorted(name for name in names if name.endswith(".gguf")):
        return f"{gguf[0]} is in llama.cpp's format, which is not read here; give the checkpoint it was made from"
    if any(name.endswith(".distcp") for name in names):
        return "it holds a distributed checkpoint of torch; gather it into one file first (dcp_to_torch_save)"
    if "zero_to_fp32.py" in names or any(name.startswith("global_step") for name in names):
        return "it holds a checkpoint of DeepSpeed; gather it into one file first (zero_to_fp32.py)"
    if inner:
        return f"it is not a model's folder, but '{folder / inner[-1].parent}' is"
    return "it is not a model's folder; bring the file that came with the weights"
