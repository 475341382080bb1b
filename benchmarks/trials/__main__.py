"""`python -m benchmarks.trials kills --number 100 --seed 1 --processes 4`: one trial, its records in a JSON file."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
os.environ |= {"CUDA_VISIBLE_DEVICES": ""}  # what is tried is files and processes: a GPU would only be waited for

NAMES = {name: name for name in ("kills", "damage", "hostile", "full", "second")} | {"random": "random_input"}

parser = argparse.ArgumentParser(prog="benchmarks.trials", description=__doc__)
parser.add_argument("trial", choices=NAMES)
parser.add_argument(
    "--number", type=int, default=100, help="cases, of `kills` the kills (0: all there are, or what is usual)"
)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--processes", type=int, default=1, help="cases at a time; what comes out does not depend on it")
parser.add_argument("--minutes", type=float, default=600, help="no case is begun after so many")
parser.add_argument("--only", default="", help="of these, the cases whose names hold this (all such: --number 0)")
parser.add_argument("--out", type=Path, default=Path("runs/trials.json"), help="where the records go")
parser.add_argument("--place", type=Path, help="where the cases work; by default a temporary folder")
args = parser.parse_args()

from benchmarks.trials.runner import Order, run  # noqa: E402 (torch reads the environment above)

trial = import_module(f"benchmarks.trials.{NAMES[args.trial]}")
order = Order(args.trial, args.number, args.seed, args.processes, args.minutes, args.only)
sys.exit(1 if run(trial, order, args.out.absolute(), args.place and args.place.absolute()) else 0)
