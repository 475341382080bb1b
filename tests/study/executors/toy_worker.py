"""Stands for a run's process, without the seconds that torch takes to be imported.

It writes its number into `pids`, does what `does` in its folder says, and saves when its parent asks or is gone.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

folder = Path(sys.argv[1])


def save(*_):
    (folder / "saved").touch()
    os._exit(75)


def end_with_parent():
    os.read(0, 1)
    save()


signal.signal(signal.SIGTERM, save)
threading.Thread(target=end_with_parent, daemon=True).start()
with (folder / "pids").open("a") as file:
    file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
(folder / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
match (folder / "does").read_text():
    case "fail":
        print("no such luck")
        sys.exit(2)
    case "die":
        if len((folder / "pids").read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    case "wait":
        if not (folder / "saved").exists():
            time.sleep(60)
    case "elsewhere":
        sys.exit(0)
(folder / "result.json").write_text("{}")
