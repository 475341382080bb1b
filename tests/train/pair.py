"""Two processes that train together, as a launcher starts them, without the seconds that an import of torch takes."""

import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

PRELOADED = ["loopscale.train", "loopscale.evaluate", "loopscale.cli.main"]


class Pair:
    """Starts pairs of processes from a server that has imported what they need; each runs `task(rank, *args)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def run(self, task: Callable[..., None], *args, statuses: tuple[int, int] = (0, 0)) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.folder / f"{port}.txt"
        ours = {name: value for name, value in os.environ.items() if name.startswith("LOOPSCALE_")}
        processes = [self.context.Process(target=_member, args=(rank, port, log, ours, task, *args)) for rank in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(180)
        found = tuple(process.exitcode for process in processes)
        for process in processes:  # one that hangs would be waited for at the end of the tests
            process.kill()
        assert found == statuses, log.read_text() if log.exists() else found


def _member(rank: int, port: int, log: Path, environment: dict[str, str], task: Callable[..., None], *args) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()}, **environment)
    import torch

    torch.set_num_threads(1)
    try:
        task(rank, *args)
    except BaseException:
        with log.open("a") as file:
            file.write(f"rank {rank}\n{traceback.format_exc()}\n")
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def train_all(rank: int, documents: list[dict], killed: tuple[int, int, int] | None = None) -> None:
    """Train runs one after the other; the process of a rank is sent a signal at the beginning of a step."""
    import torch
    from torch.distributed.tensor import DTensor
    from transformers import TrainerCallback

    from loopscale.train import RunConfig, train

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if killed is not None and (rank, state.global_step) == killed[:2]:
                os.kill(os.getpid(), killed[2])

        def on_step_end(self, args, state, control, model, optimizer, **_):
            large = [p for p in model.parameters() if p.shape[0] > 1]
            shared = {isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in large}
            states = {isinstance(v, DTensor) for s in optimizer.optimizer.state.values() for v in s.values() if v.ndim}
            assert shared == states == {config.train.shard}, (shared, states)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.manual_seed(rank)  # what a process has drawn before says nothing
    for document in documents:
        config = RunConfig.from_dict(document)
        train(config, [Watch()], quiet=True)
