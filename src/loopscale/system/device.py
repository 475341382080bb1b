"""Device that `--device` names, one that this machine has."""

import torch

from loopscale.errors import InputError, unknown

DEVICES = ("cpu", "cuda", "xpu")


def device_named(name: str) -> torch.device:
    """Return a device of this machine by name. Raises `InputError` for one that it has not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind == "mps":
        raise InputError("--device mps cannot be used: it has no float64, which sums over tokens need; take cpu.")
    if kind not in DEVICES:
        raise InputError(f"--device {name} cannot be used here: {unknown('device', kind, (*DEVICES, 'auto'))}")
    count = 1 if kind == "cpu" else torch.get_device_module(kind).device_count()
    if (number and not number.isdecimal()) or not int(number or 0) < count:
        there = f"{kind} has {count} here, counted from 0" if count else f"there is no {kind} device"
        raise InputError(f"--device {name} cannot be used here: {there}.")
    return torch.device(name)
