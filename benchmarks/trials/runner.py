"""Runner of a trial: its cases over worker processes with private folders, their records in order in one JSON file.

A case is drawn from the seed and its number alone, so that more processes are only sooner: what differs are clocks,
and where a kill at a random moment fell.
"""

import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, final

import torch
import transformers

Record = Mapping[str, Any]
SAY_EVERY = 10  # seconds


@final
@dataclass(frozen=True)
class Case:
    """One thing tried: its name, and what tries it and returns a record with at least `kind` and `bad`."""

    name: str
    act: Callable[[], Record]


@final
@dataclass(frozen=True)
class Order:
    """What was asked for."""

    trial: str
    number: int
    seed: int
    processes: int = 1
    minutes: float = 600
    only: str = ""


class Trial(Protocol):
    """A module of cases."""

    def cases(self, number: int, seed: int, place: Path) -> Sequence[Case]:
        """Return so many cases (0: all), the same for the same seed; `place` is an empty folder of their own."""
        ...


@cache
def _cases(trial: str, order: Order, place: Path) -> Sequence[Case]:
    """Return the cases of this process, made once."""
    torch.set_num_threads(1)
    own = place / f"process-{os.getpid()}"
    own.mkdir(parents=True)
    os.chdir(own)
    found = sys.modules[trial].cases(order.number, order.seed, own)
    return [case for case in found if order.only in case.name]


def _count(trial: str, order: Order, place: Path) -> int:
    return len(_cases(trial, order, place))


def _record(trial: str, order: Order, place: Path, index: int) -> Record:
    """Try one case; a trial that breaks down is a bad case too."""
    began, name = time.monotonic(), ""
    try:
        case = _cases(trial, order, place)[index]
        name, record = case.name, case.act()
    except Exception:
        record = {"kind": "TRIAL BROKE DOWN", "bad": True, "said": traceback.format_exc()[-2000:]}
    own = {key: _nameless(value, place) for key, value in record.items()}
    return {"number": index, "case": _nameless(name, place), **own, "seconds": round(time.monotonic() - began, 1)}


def _nameless(value: Any, place: Path) -> Any:
    """Return a text without the folder of this process and the numbers of any."""
    if not isinstance(value, str):
        return value
    text = re.sub(rf"{re.escape(str(place))}/process-\d+", "PLACE", value)
    return re.sub(r"\bprocess \d+", "process N", text).encode("utf-8", "backslashreplace").decode()


def run(trial: Any, order: Order, out: Path, place: Path | None = None) -> int:
    """Try every case, say how far it is, write the records; return how many were bad."""
    root = place or Path(tempfile.mkdtemp(prefix="trials-"))
    out.parent.mkdir(parents=True, exist_ok=True)
    began, records, said = time.monotonic(), dict[int, Record](), 0.0
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(order.processes, fork) as pool:
        count = pool.submit(_count, trial.__name__, order, root).result()
        tried: list[Future[Record]] = [pool.submit(_record, trial.__name__, order, root, i) for i in range(count)]
        for future in as_completed(tried):
            if future.cancelled():
                continue
            record = future.result()
            records[int(record["number"])] = record
            if record["bad"]:
                print(f"BAD {json.dumps(record)}", flush=True)
            spent = time.monotonic() - began
            if spent - said > SAY_EVERY or len(records) == count:
                said = spent
                left = spent / len(records) * (count - len(records))
                print(f"{order.trial}: {len(records)} of {count}, {_bad(records)} bad, {left:.0f} s left", flush=True)
                _write(out, order, count, records, spent)
            if spent > order.minutes * 60:
                for later in tried:  # the pool notifies `as_completed` of these; of a shutdown it does not
                    later.cancel()
    _write(out, order, count, records, time.monotonic() - began)
    print(json.dumps(_summary(records), indent=2))
    if place is None and not _bad(records):
        shutil.rmtree(root, ignore_errors=True)
    elif place is None:
        print(f"what the bad ones left: {root}")
    return _bad(records)


def _bad(records: Mapping[int, Record]) -> int:
    return sum(bool(record["bad"]) for record in records.values())


def _summary(records: Mapping[int, Record]) -> dict[str, int]:
    return dict(sorted(Counter(str(record["kind"]) for record in records.values()).items()))


def _write(out: Path, order: Order, count: int, records: Mapping[int, Record], seconds: float) -> None:
    """Put what is known into the file, whole or not at all."""
    found = {
        **{key: value for key, value in asdict(order).items() if key != "minutes"},
        "cases": count,
        "tried": len(records),
        "bad": _bad(records),
        "kinds": _summary(records),
        "seconds": round(seconds),
        "environment": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cores": os.cpu_count(),
        },
        "records": [records[i] for i in sorted(records)],
    }
    new = out.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1) + "\n")
    new.replace(out)
