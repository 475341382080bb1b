"""Is a checkpoint whole? Asked before it is resumed from, at the cost of reading a few bytes of each file."""

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from loopscale.errors import InputError

NEEDED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")


def check_checkpoint(path: str | None) -> str | None:
    """Return the folder of a checkpoint that is whole. Raises `InputError` that names the file that is not."""
    if path is None:
        return None
    folder = Path(path)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if not any(folder.glob("rng_state*.pth")):
        missing.append("rng_state.pth")
    broken = [path_.name for path_ in sorted(folder.iterdir()) if not _is_whole(path_)]
    for what, names in (("lacks", missing), ("is damaged in", broken)):
        if names:
            raise InputError(
                f"checkpoint {folder} {what} {', '.join(names)}: remove that folder, and the same command goes on from "
                "an earlier one if there is any, or trains anew."
            )
    return path


def _is_whole(path: Path) -> bool:
    """Return whether a file is as long as it says itself."""
    try:
        match path.suffix:
            case ".safetensors":
                with safe_open(path, framework="pt"):
                    return True
            case ".pt" | ".pth":
                return zipfile.is_zipfile(path)  # its list of contents stands at the end
            case ".json":
                return json.loads(path.read_text(encoding="utf-8")) is not None
    except (OSError, ValueError, SafetensorError):
        return False
    return True
