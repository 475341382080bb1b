"""Text too large for a disk: read as it is trained on, by each process its share, resumable at every window."""

from loopscale.data.streaming.text_stream import TextStream, stream_of
from loopscale.data.streaming.windows import StreamedWindows

__all__ = ["StreamedWindows", "TextStream", "stream_of"]
