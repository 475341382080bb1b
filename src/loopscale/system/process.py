"""Process-wide state, borrowed and given back: environment, seeds, threads, log levels, progress bars.

Training is one call among others in a notebook or a sweep: what it changes for itself is as it was when it returns,
also when it fails.
"""

import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from loopscale.hf import accelerate_state

LIBRARIES = ("transformers", "datasets", "huggingface_hub", "accelerate")  # they bring handlers of their own
TALKING = (*LIBRARIES, "loopscale", "filelock", "torch")


@contextmanager
def borrowed(quiet: bool = False) -> Iterator[None]:
    """Give back on leaving what training changes: environment variables, random states, torch's settings, log levels.

    `quiet` keeps everything off standard output and standard error meanwhile: bars, warnings, and what is logged here.
    A handler of the caller that writes elsewhere, into a file, takes the records as ever.
    """
    with ExitStack() as stack:
        stack.enter_context(environment_restored())
        stack.enter_context(_torch_restored())
        stack.enter_context(_torch_for_training())
        stack.enter_context(_randomness_restored())
        stack.enter_context(accelerate_state())
        stack.enter_context(_logging_restored())
        if quiet:
            stack.enter_context(_silence())
        yield


@contextmanager
def environment_restored(without: Iterable[str] = ()) -> Iterator[None]:
    """Give back the environment variables as they are now; those named in `without` are unset meanwhile."""
    before = dict(os.environ)
    for name in without:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def _torch_restored() -> Iterator[None]:
    dtype, threads, precision = torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def _torch_for_training() -> Iterator[None]:
    """Keep gradients, and weights in float32, whatever the caller has set for calls of their own."""
    with torch.inference_mode(False), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        yield


@contextmanager
def _randomness_restored() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _logging_restored() -> Iterator[None]:
    """Keep levels; bars of transformers are off meanwhile: training says where it stands itself."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    root = logging.getLogger().level
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        logging.getLogger().setLevel(root)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _silence() -> Iterator[None]:
    last_resort, logging.lastResort = logging.lastResort, logging.NullHandler()
    handlers = {name: logging.getLogger(name).handlers[:] for name in LIBRARIES}
    for name in LIBRARIES:
        logging.getLogger(name).handlers = []
    consoles = [handler for handler in logging.getLogger().handlers if _writes_to_console(handler)]
    for handler in consoles:
        handler.addFilter(_of_the_caller)
    datasets: Any = sys.modules.get("datasets")
    bars = datasets is not None and not datasets.are_progress_bars_disabled()
    if bars:
        datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_nothing
            yield
    finally:
        logging.lastResort = last_resort
        for handler in consoles:
            handler.removeFilter(_of_the_caller)
        for name, own in handlers.items():
            logging.getLogger(name).handlers = own
        if bars:
            datasets.enable_progress_bars()


def _writes_to_console(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and handler.stream is not None and handler.stream in streams


def _of_the_caller(record: logging.LogRecord) -> bool:
    """Return whether a record is from neither this library nor those under it."""
    return record.name.partition(".")[0] not in TALKING


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def compute_in_one_order() -> None:
    """Let torch compute deterministically; what cannot be is an error. `borrowed` gives back what was before."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def in_main_thread() -> bool:
    """Return whether this is the thread that signals arrive in, the only one that may listen for them."""
    return threading.current_thread() is threading.main_thread()
