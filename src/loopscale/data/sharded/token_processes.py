"""Processes that share the tokenising of a text: each takes the next part, with one shard in memory at a time.

They are programs of their own rather than copies of this one: a script that loads data at its top level would start
again in a copy, and threads of torch and tokenizers do not outlive a fork.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
from transformers import PreTrainedTokenizerFast

from loopscale.data.sharded.documents import Shard
from loopscale.errors import InputError

PROGRAM = "loopscale.data.sharded.part_writer"
PROCESS, UNPACKED = 2**29, 16  # bytes of a process that holds nothing, and of a shard being read for each of its file

Writer = subprocess.Popen[bytes]
Parts = Mapping[Path, Sequence[Shard]]


def processes_for(parts: Parts, asked: int | None) -> int:
    """Return how many processes share the parts: one for each core, as far as there are parts and free memory."""
    if asked is not None:
        return min(asked, len(parts))
    largest = max((shard.stamp.size for shards in parts.values() for shard in shards), default=0)
    room = psutil.virtual_memory().available // 2 // (PROCESS + UNPACKED * largest)
    return min(len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1, len(parts), room)


def write_parts(parts: Parts, tokenizer: PreTrainedTokenizerFast, processes: int, done: Callable[[Path], None]) -> None:
    """Write parts by several processes, and tell of each that is done.

    Raises `InputError` for what one of them could not read or write, or where one was killed.
    """
    with ThreadPoolExecutor(processes) as threads, _started(processes, tokenizer) as idle:

        def write(part: Path, shards: Sequence[Shard]) -> Path:
            writer = idle.get()
            try:
                _ask(writer, (part, shards))
            finally:
                idle.put(writer)
            return part

        work = [threads.submit(write, part, shards) for part, shards in parts.items()]
        try:
            for one in as_completed(work):
                done(one.result())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _started(processes: int, tokenizer: PreTrainedTokenizerFast) -> Iterator["SimpleQueue[Writer]"]:
    """Yield writers that wait for work. They end when their input does: when we let go, and however we end."""
    path = os.pathsep.join(filter(None, sys.path))  # ours, and not the folder that we are in: it may hold the text
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path}
    idle: SimpleQueue[Writer] = SimpleQueue()
    writers = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for us
        )
        for _ in range(processes)
    ]
    try:
        for writer in writers:
            _tell(writer, tokenizer)
            idle.put(writer)
        yield idle
    except BaseException:
        for writer in writers:
            writer.kill()
        raise
    finally:
        for writer in writers:
            writer.communicate()


def _tell(writer: Writer, what: Any) -> None:
    assert writer.stdin is not None
    pickle.dump(what, writer.stdin)
    writer.stdin.flush()


def _ask(writer: Writer, work: tuple[Path, Sequence[Shard]]) -> None:
    assert writer.stdout is not None
    try:
        _tell(writer, work)
        complaint = pickle.load(writer.stdout)
    except (EOFError, OSError) as error:
        raise InputError(
            f"a process that tokenised ended (status {writer.wait()}), perhaps for want of memory: begin again, what "
            "the others wrote is kept; smaller files take less memory."
        ) from error
    if complaint is not None:
        raise InputError(complaint)
