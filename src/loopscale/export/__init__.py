"""Our models in the form of other people's runtimes."""

from loopscale.export.gguf_file import DTYPES, to_gguf

__all__ = ["DTYPES", "to_gguf"]
