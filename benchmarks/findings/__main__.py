"""`python -m benchmarks.findings` writes the findings anew."""

import argparse
from pathlib import Path

from benchmarks import findings


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.findings", description=findings.__doc__)
    parser.add_argument("--keep", nargs=2, metavar=("RUN_DIR", "NAME"), help="put a study into results/NAME")
    args = parser.parse_args()
    if args.keep:
        findings.keep(Path(args.keep[0]), args.keep[1])
    findings.write()


main()
