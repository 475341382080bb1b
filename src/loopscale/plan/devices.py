"""Devices that a training is planned for: their memory, and their peak in bf16 matrix products."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from loopscale.errors import unknown


@final
@dataclass(frozen=True)
class Device:
    """One accelerator, or a machine that trains on its processor.

    memory_gib: what a program sees of it, in GiB. peak_tflops: 10^12 floating-point operations per second of dense bf16
    products with sums in float32; None where no data sheet says so. None of memory: that of the machine that asks.
    """

    name: str
    memory_gib: float | None
    peak_tflops: float | None
    source: str


CPU = "cpu"  # the machine that asks

# Peaks are the makers' own, without sparsity (which data sheets double them by); memory is what drivers report.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device("a100", 80.0, 312.0, "NVIDIA A100 Tensor Core GPU data sheet, 80 GB SXM"),
        Device("h100", 79.6, 989.4, "NVIDIA H100 Tensor Core GPU data sheet, SXM5"),
        Device("h200", 140.4, 989.4, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
        Device("b200", 179.0, 2250.0, "NVIDIA HGX B200 data sheet"),
        Device("l40s", 45.0, 362.0, "NVIDIA L40S data sheet"),
        Device("rtx4090", 24.0, 165.2, "NVIDIA Ada GPU architecture white paper"),
        Device("mi300x", 191.7, 1307.4, "AMD Instinct MI300X data sheet"),
        Device(CPU, None, None, "this machine"),
    )
}


OTHER_FORMS = ("pcie", "nvl", "mig")  # than the one in the table, most of them slower


def device_of(name: str) -> Device:
    """Return a device by its name. Raises `InputError` for one that is not known."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]


def device_called(driver_name: str) -> Device | None:
    """Return the device that a driver calls so, such as `NVIDIA H100 80GB HBM3`; None for one that is not known.

    Cards of the same name in another form (`NVIDIA H100 PCIe`) may have other peaks, parts of one (MIG) a part of it.
    """
    if any(form in driver_name.lower() for form in OTHER_FORMS):
        return None
    words = driver_name.lower().replace("geforce ", "").replace("rtx ", "rtx").replace("-", " ").split()
    return next((DEVICES[word] for word in words if word in DEVICES), None)
