"""Program that writes parts of a text's tokens: it reads what to write, and answers with what went wrong, or None."""

import os
import pickle
import sys

from loopscale.data.sharded.token_parts import write_part
from loopscale.errors import InputError


def main() -> None:
    """Write parts until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    tokenizer = pickle.load(sys.stdin.buffer)
    while True:
        try:
            part, shards = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        complaint = None
        try:
            write_part(part, shards, tokenizer)
        except InputError as error:
            complaint = str(error)
        pickle.dump(complaint, answers)
        answers.flush()


if __name__ == "__main__":
    main()
