"""Trials of reliability, run by hand: kills, damage, hostile input. `python -m benchmarks.trials kills --seed 1`."""
