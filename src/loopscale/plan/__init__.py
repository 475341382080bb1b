"""Plan of a training before it runs: what a model takes of a device, and what a device makes of it."""

from loopscale.plan.devices import DEVICES, Device, device_called, device_of
from loopscale.plan.display import plan_tables
from loopscale.plan.folder import run_of_folder
from loopscale.plan.ledger import Ledger
from loopscale.plan.planner import plan_memory, plan_run
from loopscale.plan.records import LIBRARIES, Circumstances, Logits, Memory, Mode, Plan
from loopscale.plan.step import StepCost, step_cost

__all__ = [
    "DEVICES",
    "LIBRARIES",
    "Circumstances",
    "Device",
    "Ledger",
    "Logits",
    "Memory",
    "Mode",
    "Plan",
    "StepCost",
    "device_called",
    "device_of",
    "plan_memory",
    "plan_run",
    "plan_tables",
    "run_of_folder",
    "step_cost",
]
