"""Plan of a training before it runs: what a model takes of a device, and what a device makes of it."""

from loopscale.plan.devices import DEVICES, Device, device_called, device_of

__all__ = ["DEVICES", "Device", "device_called", "device_of"]
