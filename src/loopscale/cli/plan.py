"""`loopscale plan`: what a training takes of a device, how long it is and what it costs."""

from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from loopscale.cli.parser import check_outputs
from loopscale.cli.train import run_config
from loopscale.display import console
from loopscale.plan import Circumstances, device_of, plan_run, plan_tables
from loopscale.storage import plain, write_json


def run(args: Namespace) -> int:
    """Work the plan out, print it, and write it where that is asked for."""
    check_outputs(args)
    device = device_of(args.device)
    given = {name: args[name] for name in ("memory_gib", "peak_tflops") if args[name] is not None}
    if given:
        device = replace(device, **given, source="as given" if "peak_tflops" in given else device.source)
    on = Circumstances(device, args.devices, args.tokens, args.mfu, args.price)
    plan = plan_run(run_config(args, "."), on)
    out = console()
    for table in plan_tables(plan):
        out.print(table, "")
    for note in plan.notes:
        out.print(f"note: {note}", soft_wrap=True, highlight=False)
    if args.json is not None:
        write_json(Path(args.json), plain(plan))
    return 0
