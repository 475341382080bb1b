"""`python -m benchmarks.trials kills --number 100 --seed 1`: one trial, its figures on standard output."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

NAMES = ("kills", "damage", "hostile", "full", "second")

parser = argparse.ArgumentParser(prog="benchmarks.trials", description=__doc__)
parser.add_argument("trial", choices=NAMES)
parser.add_argument("--number", type=int, default=100)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--out", type=Path, default=Path("runs/trials"))
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
sys.exit(1 if import_module(f"benchmarks.trials.{args.trial}").main(args.number, args.seed, args.out.absolute()) else 0)
