"""Pretrained models made into looped ones: surgery, the choice of layers, healing."""

from loopscale.retrofit.core_scan import Scan, ScanPoint, default_cores, scan_cores, scan_stack, whole_stack
from loopscale.retrofit.display import scan_table
from loopscale.retrofit.healing import Healing, HealingStep, distilled, heal
from loopscale.retrofit.looped_folder import RetrofitRecord, retrofit_folder
from loopscale.retrofit.surgery import retrofit

__all__ = [
    "Healing",
    "HealingStep",
    "RetrofitRecord",
    "Scan",
    "ScanPoint",
    "default_cores",
    "distilled",
    "heal",
    "retrofit",
    "retrofit_folder",
    "scan_cores",
    "scan_stack",
    "scan_table",
    "whole_stack",
]
