"""Weights from files as people have them: safetensors or torch's own, sharded or not, nested in a script's dict.

Nothing is executed: of torch's files only tensors and plain values are unpickled, and what else they hold is named.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loopscale.display import progress_bar
from loopscale.errors import InputError
from loopscale.storage import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
SAFE_ENDINGS = frozenset({".safetensors"})
TORCH_ENDINGS = frozenset({".pt", ".pth", ".bin", ".ckpt"})
# what training scripts call the weights among the rest of a checkpoint, the likeliest first
NESTS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "weights", "params")
LFS = b"version https://git-lfs"

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class ShardIndex:
    """The index of a sharded checkpoint: the file that holds each tensor."""

    weight_map: Mapping[str, str]


logger = logging.getLogger(__name__)


def is_weight_file(name: str | Path) -> bool:
    """Return whether the name is that of a file of weights, there or not."""
    return Path(name).suffix in SAFE_ENDINGS | TORCH_ENDINGS and not Path(name).is_dir()


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder: one, those that an index names, or the only one of its kind.

    Raises `InputError` where one is missing, the index points out of the folder, or it is not clear which ones.
    """
    for index, whole in ((INDEX, WEIGHTS), (TORCH_INDEX, TORCH_WEIGHTS)):
        if (folder / index).is_file():
            return _indexed(folder, index)
        if (folder / whole).is_file():
            return [folder / whole]
    for endings in (SAFE_ENDINGS, TORCH_ENDINGS):
        found = sorted(path for path in folder.iterdir() if path.suffix in endings and path.is_file())
        found = [path for path in found if path.stem not in {"optimizer", "scheduler", "training_args", "scaler"}]
        if len(found) == 1:
            return found
        if found:
            names = ", ".join(path.name for path in found[:3])
            raise InputError(f"'{folder}' holds {len(found)} files of weights and no {INDEX} ({names}): name the file.")
    raise InputError(f"no weights in '{folder}': it needs {WEIGHTS} or {TORCH_WEIGHTS}.")


def read_weights(files: list[Path]) -> Weights:
    """Return every tensor of these files, with a progress bar where that is slow.

    Raises `InputError` where a file is broken, or holds something else than tensors under names.
    """
    sizes = [path.stat().st_size for path in files]
    weights: Weights = {}
    with progress_bar("reading weights", sum(sizes)) as advance:
        for path, size in zip(files, sizes, strict=True):
            weights |= safe_tensors(path) if path.suffix in SAFE_ENDINGS else state_dict(read_torch(path), path)
            advance(size)
    return weights


def safe_tensors(path: Path) -> Weights:
    """Return the tensors of a safetensors file."""
    check_whole(path)
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"'{path}' is broken, or was not copied whole: {error}.") from error


def read_torch(path: str | Path) -> Any:
    """Return what lies in a file that torch.save wrote: tensors and plain values, of which none is executed.

    Raises `InputError` for a file that is not there or not whole, and names the class of any other object in it.
    """
    try:
        check_whole(Path(path))
        zipped = is_zipfile(path)  # torch maps no file of its former format
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except FileNotFoundError as error:
        raise InputError(f"no checkpoint at '{path}': give a .pt file, a folder or a hub id.") from error
    except InputError:
        raise
    except Exception as error:  # the unpickler fails in any way on what is no pickle
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"'{path}' cannot be loaded safely: it holds an object of {found[1]}, which would run code; save the "
                "weights alone, torch.save(model.state_dict(), path), or as safetensors."
            ) from error
        raise InputError(
            f"'{path}' cannot be loaded safely: it is not a whole torch checkpoint of tensors and plain values."
        ) from error


def state_dict(content: Any, path: Path) -> Weights:
    """Return the weights in a checkpoint: the dict itself, or what lies in it under one of the usual names."""
    for _ in range(3):  # scripts nest a wrapper's dict in their own
        if not isinstance(content, Mapping):
            break
        nest = next((name for name in NESTS if isinstance(content.get(name), Mapping)), None)
        if nest is None:
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            if tensors and any(value.is_meta for value in tensors.values()):
                raise InputError(f"'{path}' holds names and shapes without values (device meta): save the weights.")
            if tensors:
                return tensors
            names = ", ".join(sorted(map(str, content))[:6]) or "nothing"
            raise InputError(
                f"'{path}' holds no weights where they are looked for, but {names}: save the state dict alone."
            )
        aside = ", ".join(str(name) for name in content if name != nest)
        logger.warning(
            "'%s': the weights are those under '%s'%s", path, nest, f"; left aside: {aside}" if aside else ""
        )
        content = content[nest]
    raise InputError(f"'{path}' holds no dict of weights, but {type(content).__name__}: save model.state_dict().")


def check_whole(path: Path) -> None:
    """Raise `InputError` for a file that is empty, or that only points at the weights in git's large file storage."""
    with path.open("rb") as file:
        begin = file.read(len(LFS))
    if not begin:
        raise InputError(f"'{path}' is broken: it is empty, copy it again.")
    if begin == LFS:
        raise InputError(f"'{path}' is a git-lfs pointer, not the weights themselves: fetch them with git lfs pull.")


def _indexed(folder: Path, index: str) -> list[Path]:
    names = set(read_json(folder / index, ShardIndex, "give the index of a sharded checkpoint").weight_map.values())
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"'{folder}' is not a whole checkpoint: {name} is missing.")
    return [folder / name for name in sorted(names)]
