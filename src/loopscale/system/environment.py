"""Environment of a result: versions, machine and source revision, without host name, user or path."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from loopscale import __version__

PACKAGES = ("torch", "transformers", "accelerate", "datasets")
SOURCE = Path(__file__).parents[1]  # of the whole library


def environment() -> dict[str, Any]:
    """Return versions, machine and source revision as plain values; None for what does not exist here.

    `source_revision` is the git commit of the checkout that this package was imported from, `source_dirty`
    whether its files differ from that commit.
    """
    revision = _revision(SOURCE)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "loopscale": __version__,  # of these files, installed or not
        **{package: version(package) for package in PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gpu_count": torch.cuda.device_count(),
        "source_revision": revision,
        "source_dirty": None if revision is None else bool(_git(SOURCE, "status", "--porcelain", ".")),
    }


def as_one(environments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several environments as one: what all share, a list of what they do not, the last of their dates."""
    found = tuple(environments)
    values = {
        key: _distinct(one.get(key) for one in found) for key in dict.fromkeys(key for one in found for key in one)
    }
    if dates := [date for date in values.get("date", ()) if date]:
        values["date"] = [max(dates)]
    return {key: each[0] if len(each) == 1 else each for key, each in values.items()}


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return every value once; a list stands for its values."""
    found: list[Any] = []
    for value in values:
        found += [each for each in (value if isinstance(value, list) else [value]) if each not in found]
    return found


def _cpu_model() -> str | None:
    """Return the processor's own name: from /proc on Linux, elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _revision(package: Path) -> str | None:
    """Return the commit of the checkout that tracks the package; one merely around it does not count."""
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    return _git(package, "rev-parse", "HEAD") if tracked else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
