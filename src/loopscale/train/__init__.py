"""Training: the typed configuration of a run, transformers' Trainer with loop metrics, and the run in its folder."""

from loopscale.train.config import MODEL_FIELDS, RUNS, DataConfig, RunConfig, TrainConfig, preset_run
from loopscale.train.folder import check_corpus, check_folder, differences, read_config, started, write_config
from loopscale.train.run import Trained, load_run_data, train
from loopscale.train.trainer import LoopedTrainer, StopOnSignal

__all__ = [
    "MODEL_FIELDS",
    "RUNS",
    "DataConfig",
    "LoopedTrainer",
    "RunConfig",
    "StopOnSignal",
    "TrainConfig",
    "Trained",
    "check_corpus",
    "check_folder",
    "differences",
    "load_run_data",
    "preset_run",
    "read_config",
    "started",
    "train",
    "write_config",
]
