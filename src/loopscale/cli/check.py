"""`loopscale check`: a few steps of a configuration at several sizes, and what its state does over them."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.cli.audit import read_config
from loopscale.cli.parser import check_outputs
from loopscale.display import console, tracker, write_figure
from loopscale.errors import InputError
from loopscale.model import LoopedConfig
from loopscale.monitor import check_figure, check_table, loop_check
from loopscale.storage import check_writable, write_json
from loopscale.train import RUNS, preset_run

VOCABULARY = 256  # of a configuration that leaves it to its tokenizer: random ids need no more
UNSTEADY = 3


def run(args: Namespace) -> int:
    """Train a little everywhere, print the verdicts, draw."""
    figure = Path(args.figure)
    check_writable("--figure", figure.parent)
    check_outputs(args)
    config = _config(args.config)
    check = loop_check(
        config, args.widths or (), args.loops or (), args.learning_rates, args.steps, seed=args.seed, track=tracker()
    )
    screen = console()
    screen.print(check_table(check))
    write_figure(check_figure(check), figure.with_suffix(""))
    screen.print(f"drawn in {figure.with_suffix('.png')}", markup=False, highlight=False, soft_wrap=True)
    if args.json is not None:
        rows = [
            {"width": p.width, "loops": p.loops, "rate": p.rate, "step": p.step}
            | ({} if p.reading is None else {"scale": p.reading.scale, "angular_step": p.reading.angular_step})
            for p in check.points
        ]
        write_json(Path(args.json), {"verdicts": check.verdicts, "points": rows})
    return 0 if check.steady else UNSTEADY


def _config(name: str) -> LoopedConfig:
    if name in RUNS:
        return preset_run(name).model_config(VOCABULARY)
    if not Path(name).exists():
        raise InputError(f"there is no file {name}, and no preset of that name: give a file, or {', '.join(RUNS)}.")
    return read_config(Path(name))[0]
