"""Turn a looped model made elsewhere into a folder of ours: the paper's .pt files and Ouro, here or on the hub.

Ouro's own code is not needed and not run. With --to ouro, a native model of Ouro's architecture goes back.
"""

from jsonargparse import Namespace

from loopscale.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Add source, destination and target."""
    parser.add_argument("source", type=str, help="a .pt file of the paper's code, a folder, or a hub id")
    parser.add_argument("destination", type=str, help="the folder to write")
    parser.add_argument("--to", type=str, default="native", help="native (default), or ouro for Ouro's own names")
    parser.add_argument("--overwrite", action="store_true", help="replace the destination if it exists")


def run(args: Namespace) -> int:
    """Convert and say what was written."""
    from loopscale.convert import convert_checkpoint

    folder = convert_checkpoint(args.source, args.destination, args.to, args.overwrite)
    with_tokenizer = "with" if any(folder.glob("tokenizer*")) else "without"
    print(f"wrote {folder} ({args.to}, {with_tokenizer} a tokenizer)")
    return 0
