"""Checkpoints to resume from: which there are, and the newest that is whole.

A checkpoint that was damaged since is named and passed over: the run goes on from the one before.
"""

import logging
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open
from torch.serialization import get_unsafe_globals_in_checkpoint

from loopscale.errors import InputError
from loopscale.storage import read_json
from loopscale.system.manifest import MANIFEST, damage

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # in the run's folder
SUMS_FILE = "loop_sums.json"
STREAM_FILE = "stream.json"
STATE_FILE = "trainer_state.json"
NEEDED = ("optimizer.pt", "scheduler.pt", STATE_FILE)
PREFIX = "checkpoint-"
SAFE = ("numpy.", "_codecs.encode")  # what random states hold


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder, the newest first."""
    found = {
        int(number): path
        for path in (folder / CHECKPOINTS).glob(f"{PREFIX}*")
        if path.is_dir() and (number := path.name.removeprefix(PREFIX)).isdecimal()
    }
    return [found[step] for step in sorted(found, reverse=True)]


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint, whole or not, if there is any."""
    return next(map(str, checkpoints(folder)), None)


def good_checkpoint(folder: Path, run: str | None = None) -> Path | None:
    """Return the newest checkpoint that is whole and of the run; None where there is none at all.

    Raises `InputError` that names what is wrong where none is whole.
    """
    found = [(path, _complaint(path, run)) for path in checkpoints(folder)]
    good = next((path for path, complaint in found if complaint is None), None)
    for path, complaint in found:
        if path == good:
            break
        if good is not None:
            logger.warning("checkpoint %s %s: going on from %s instead.", path, complaint, good.name)
        else:
            raise InputError(
                f"checkpoint {path} {complaint}: remove that folder, and the same command goes on from an earlier one "
                "if there is any, or trains anew."
            )
    return good


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step of a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))


def _complaint(folder: Path, run: str | None) -> str | None:
    """Return what is wrong with a checkpoint in words, if anything is."""
    if (folder / MANIFEST).is_file() and (found := damage(folder, run)) is not None:
        return found
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if not any(folder.glob("rng_state*.pth")):
        missing.append("rng_state.pth")
    if missing:
        return f"lacks {', '.join(missing)}"
    broken = [path.name for path in sorted(folder.iterdir()) if not _is_whole(path)]
    if broken:
        return f"is damaged in {', '.join(broken)}"
    state: Any = read_json(folder / STATE_FILE, object)
    known = isinstance(state, dict) and {"max_steps", "train_batch_size", "log_history"} <= state.keys()
    if not known or state.get("global_step") != step_of(folder):
        return f"is not of the step that its name says ({STATE_FILE})"
    return None


def _runs_code(path: Path) -> bool:
    """Return whether a pickle names anything but tensors and numpy's arrays; it is not loaded."""
    return not all(name.startswith(SAFE) for name in get_unsafe_globals_in_checkpoint(path))


def _is_whole(path: Path) -> bool:
    """Return whether a file is as long as it says itself."""
    try:
        match path.suffix:
            case ".safetensors":
                with safe_open(path, framework="pt"):
                    return True
            case ".pt" | ".pth":
                return zipfile.is_zipfile(path) and not _runs_code(path)  # its list of contents stands at the end
            case ".json":
                return read_json(path, object) is not None
    except (OSError, ValueError, SafetensorError, RuntimeError, UnpicklingError):
        return False
    return True
