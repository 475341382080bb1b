"""Training: the typed configuration of a run, transformers' Trainer with loop metrics, and the run in its folder."""

from loopscale.train.callbacks import StopOnSignal
from loopscale.train.config import MODEL_FIELDS, RUNS, DataConfig, RunConfig, TrainConfig, preset_run
from loopscale.train.depth_schedules import DEPTHS, Depth, DepthSchedule, FixedDepth
from loopscale.train.execution import first_not_finite
from loopscale.train.identity import check_corpus, check_folder, complete, differences
from loopscale.train.initialisation import run_from
from loopscale.train.run import Trained, load_run_data, train
from loopscale.train.run_folder import read_run, started, write_config
from loopscale.train.trainer import Diverged, LoopedTrainer

__all__ = [
    "DEPTHS",
    "MODEL_FIELDS",
    "RUNS",
    "DataConfig",
    "Depth",
    "DepthSchedule",
    "Diverged",
    "FixedDepth",
    "LoopedTrainer",
    "RunConfig",
    "StopOnSignal",
    "TrainConfig",
    "Trained",
    "check_corpus",
    "check_folder",
    "complete",
    "differences",
    "first_not_finite",
    "load_run_data",
    "preset_run",
    "read_run",
    "run_from",
    "started",
    "train",
    "write_config",
]
