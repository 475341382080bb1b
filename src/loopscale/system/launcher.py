"""Launcher variables (ACCELERATE_*, RANK, ...), held against the run's own settings.

accelerate and torch read them unasked: a run would train otherwise than its run.json records. Each is followed where it
says who trains with whom, refused where it asks for what training here cannot do, and else left aside in words.
"""

import getpass
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopscale.errors import InputError
from loopscale.system.process import environment_restored

logger = logging.getLogger(__name__)

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
# what accelerate reads in their stead, as mpirun and srun set them
MPI = {
    "WORLD_SIZE": ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
    "RANK": ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"),
    "LOCAL_RANK": ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
}
# another way to share a model among processes than a whole one in each
REFUSED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's launcher",
}
# of accelerate's, those that say nothing about how weights come about
HARMLESS = ("USE_CPU", "LOG_LEVEL", "DEBUG_MODE", "CPU_AFFINITY", "ENABLE_RICH", "DISABLE_RICH", "BYPASS_DEVICE_MAP")
NEUTRAL = {"", "no", "none", "false", "0", "1", "off"}
# what makes float32 products something else, each with the values that do not
FLOAT32 = {
    "NVIDIA_TF32_OVERRIDE": {"0"},
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": {"0"},
    "ONEDNN_DEFAULT_FPMATH_MODE": {"strict"},
    "DNNL_DEFAULT_FPMATH_MODE": {"strict"},
}
NO_COMPILING = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")


@contextmanager
def own_settings(precision: str, compiled: bool) -> Iterator[None]:
    """Train by the run's settings, whatever launcher variables say; those that are not followed are told of.

    Args:
        precision: what the run computes in, `bf16` or `float32`.
        compiled: whether it compiles its layers.

    Raises:
        InputError: half of a launcher's variables, a way of sharing a model that is not known here, no compiler.
    """
    for name, what in REFUSED.items():
        if _is_set(name):
            shared = "give --train.shard true for that and unset it" if what == "FSDP" else "unset it"
            raise InputError(
                f"{name}={os.environ[name]} asks for {what}, which train does not take from a launcher: {shared}, or "
                "start with torchrun or a plain `accelerate launch`."
            )
    alone = check_ranks()
    left_aside = [
        name
        for name in os.environ
        if name.startswith("ACCELERATE_") and name.removeprefix("ACCELERATE_") not in HARMLESS
    ]
    for name in left_aside:
        if _is_set(name) and os.environ[name].lower() != precision:
            logger.warning(
                "%s=%s is not followed: this run has settings of its own (it computes in %s, train.precision).",
                *(name, os.environ[name], precision),
            )
    for name, plain in FLOAT32.items():
        if precision == "float32" and os.environ.get(name, "").lower() not in {"", *plain}:
            logger.warning("%s=%s: products of float32 are computed in less than float32.", name, os.environ[name])
    if (shown := os.environ.get("CUDA_VISIBLE_DEVICES", "")) not in {"", "-1"} and not torch.cuda.is_available():
        logger.warning("CUDA_VISIBLE_DEVICES=%s shows no GPU that can be used: training on the CPU.", shown)
    mpi = [name for names in MPI.values() for name in names]
    with environment_restored(without=[*left_aside, *(RANKS if alone else ()), *mpi]):
        if compiled:
            check_compiler()
        yield


def check_ranks() -> bool:
    """Return whether this process trains alone. Raises `InputError` where a launcher's variables are half set."""
    given = {name: os.environ[name] for name in RANKS if os.environ.get(name)}
    if not given:
        _refuse_mpi()
        return True
    said = " ".join(f"{name}={value}" for name, value in given.items())
    try:
        numbers = {name: int(value) for name, value in given.items()}
    except ValueError:
        raise InputError(f"{said}: a launcher sets whole numbers; unset them, or start with torchrun.") from None
    missing = [name for name in (*RANKS, *ADDRESS) if not os.environ.get(name)]
    if missing and numbers.get("WORLD_SIZE", 1) == 1 and all(numbers.get(name, 0) <= 0 for name in RANKS[::2]):
        return True
    if missing:
        raise InputError(
            f"{said} without {', '.join(missing)}: a launcher's variables are half set. Start with torchrun, which "
            "sets them all, or unset them to train in one process."
        )
    if not 0 <= numbers["RANK"] < numbers["WORLD_SIZE"] or not 0 <= numbers["LOCAL_RANK"] < numbers["WORLD_SIZE"]:
        raise InputError(f"{said}: ranks go from 0 to WORLD_SIZE - 1; unset them, or start with torchrun.")
    if torch.cuda.is_available() and numbers["LOCAL_RANK"] >= torch.cuda.device_count():
        raise InputError(
            f"{said}: this machine shows {torch.cuda.device_count()} GPUs; start as many processes as there are GPUs."
        )
    return False


def processes_started() -> int:
    """Return how many processes a launcher says that it started, 1 where none says so."""
    said = os.environ.get("WORLD_SIZE", "")
    return int(said) if said.isdecimal() and int(said) else 1


def _refuse_mpi() -> None:
    """Raise `InputError` in one of several processes of MPI, which would each train the whole run."""
    for name in MPI["WORLD_SIZE"]:
        if os.environ.get(name, "1") not in {"", "1"}:
            raise InputError(
                f"{name}={os.environ[name]} without {', '.join((*RANKS, *ADDRESS))}: MPI started processes that "
                "know nothing of each other here. Start with torchrun, or unset it to train in one process."
            )


def check_compiler() -> None:
    """Raise `InputError` where torch.compile has no compiler; say so where a variable turns it off."""
    for name in NO_COMPILING:
        if _is_set(name, neutral={"", "0", "false"}):
            logger.warning("%s=%s: train.compile compiles nothing.", name, os.environ[name])
            return
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    wanted = os.environ.get("CXX") or usual
    if shutil.which(wanted) is None:
        raise InputError(
            f"train.compile needs a C++ compiler, and '{wanted}' is not here: install one, name it in the variable "
            "CXX, or leave out train.compile."
        )
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        try:
            getpass.getuser()
        except (KeyError, OSError, ImportError):  # a container's user without a name, which torch would ask for
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tempfile.mkdtemp(prefix="torchinductor_"))


def _is_set(name: str, neutral: set[str] = NEUTRAL) -> bool:
    return os.environ.get(name, "").strip().lower() not in neutral
