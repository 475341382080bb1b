"""`loopscale convert`: a checkpoint made elsewhere, written as a folder of ours."""

from jsonargparse import Namespace

from loopscale.convert import convert_checkpoint
from loopscale.display import console


def run(args: Namespace) -> int:
    """Convert and say what was written."""
    folder = convert_checkpoint(args.source, args.destination, args.to, args.overwrite, auto_map=args.auto_map)
    with_tokenizer = "with" if any(folder.glob("tokenizer*")) else "without"
    console().print(f"wrote {folder} ({args.to}, {with_tokenizer} a tokenizer)", soft_wrap=True, highlight=False)
    return 0
