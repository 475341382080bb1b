"""What tokenising a folder takes: python -m benchmarks.tokenising --out FILE.

Folders of as large parquet files, of two lengths, read file after file and held in memory, by one process and by more;
and two programs at once that want the same tokens. Peaks are what a process has resident beyond its imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.timing import high_water
from loopscale.data import load_corpus, load_tokenizer, tokenize
from loopscale.data.sharded import documents
from loopscale.display import Column, Table
from loopscale.system.environment import environment

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.tokenising", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mib", type=int, default=50, help="of text in a file")
    parser.add_argument("--files", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)  # one way, in a process of its own
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measured(**args.measure)))
        return
    found: dict[str, Any] = {"environment": environment(), "mib_of_a_file": args.mib, "rows": []}
    with tempfile.TemporaryDirectory() as place:
        for files in args.files:
            write(Path(place, str(files)), files, args.mib)
        time.sleep(3)  # until the file system's clock tells a further change from these
        ways = [*product(args.files, args.processes, [False]), *product(args.files, [1], [True])]
        for number, (files, processes, held) in enumerate(ways):
            cache = str(Path(place, f"cache-{number}"))
            asked = {"folder": str(Path(place, str(files))), "cache": cache, "processes": processes, "held": held}
            programs = [start(asked) for _ in range(1 if number else 2)]
            rows = [json.loads(program.communicate()[0]) for program in programs]
            for row in sorted(rows, key=lambda row: -row["cpu_seconds"]):
                found["rows"].append({"files": files, "held": held, "programs": len(rows), **row})
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=1) + "\n")
    Console().print(table(found["rows"], args.mib), f"written to {args.out}")


def write(folder: Path, files: int, mib: int) -> None:
    """Write parquet files of the standard library's source text, each so large."""
    folder.mkdir()
    texts = cycle(load_corpus("stdlib", quiet=True).train)
    for number in range(files):
        chosen, size = [], 0
        while size < mib * MIB:
            chosen.append(next(texts))
            size += len(chosen[-1].encode())
        pq.write_table(
            pa.table({"text": chosen}), folder / f"part-{number}.parquet", compression="none", use_dictionary=False
        )


def start(asked: dict[str, Any]) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "benchmarks.tokenising", "--out", "-", "--measure", json.dumps(asked)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def measured(folder: str, cache: str, processes: int, held: bool) -> dict[str, Any]:
    """Tokenise both splits, and return the MiB of this process and of the largest of those it started, and times."""
    if held:
        documents.IN_MEMORY = sys.maxsize
    before, began = high_water(resource.RUSAGE_SELF), time.time()
    corpus = load_corpus(folder, quiet=True, cache_dir=Path(cache))
    tokenizer = load_tokenizer("bytes", corpus)
    tokens = [
        tokenize(corpus, tokenizer, "train", Path(cache), processes),
        tokenize(corpus, tokenizer, "valid", Path(cache), processes),
    ]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "processes": processes,
        "tokens": sum(len(part.ids) for part in tokens),
        "imports_mib": before,
        "peak_mib": high_water(resource.RUSAGE_SELF) - before,
        "peak_mib_of_a_writer": max(0.0, high_water(resource.RUSAGE_CHILDREN) - before),
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in used),
        "seconds": time.time() - began,
    }


def table(rows: list[dict[str, Any]], mib: int) -> Table:
    cells = tuple(
        (
            f"{row['files']} x {mib} MiB, {'held in memory' if row['held'] else 'file after file'}",
            str(row["processes"]),
            f"{row['peak_mib']:,.0f}",
            f"{row['peak_mib_of_a_writer']:,.0f}" if row["peak_mib_of_a_writer"] else "",
            f"{row['cpu_seconds']:,.0f}",
        )
        for row in rows
    )
    headings = ("processes", "peak MiB", "of a writer", "CPU seconds")
    columns = (Column("folder"), *(Column(heading, numeric=True) for heading in headings))
    return Table("tokenising", "Tokenising a folder", "MiB beyond the imports.", columns, cells)


if __name__ == "__main__":
    main()
