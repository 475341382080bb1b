"""`loopscale reproduce`: a study from its options."""

from pathlib import Path

from jsonargparse import Namespace

from loopscale.cli.train import run_config
from loopscale.study.executors import executor_named
from loopscale.study.grid import grid_named
from loopscale.study.reproduce import reproduce


def run(args: Namespace) -> int:
    """Run the study; the exit status is 1 where a run of it diverged."""
    out = Path(args.out or f"runs/{'' if args.grid == 'paper' else f'{Path(args.grid).stem}-'}{args.preset}")
    for short in ("corpus", "tokenizer"):
        if args[short] is not None:
            args[f"data.{short}"] = args[short]
    grid, rates = grid_named(args.grid), args.rates or ()
    base = run_config(args, str(out))
    executor = executor_named(args.executor, args.processes, args.ray_address)
    results = reproduce(base, out, args.conditions, args.seeds, executor, grid=grid, rates=rates)
    return 1 if any(run.diverged for run in results.all_runs) else 0
