"""Memory allocator of the C library, set to keep freed memory: a CPU training step wants the same memory every time."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER, NONE = -1, 0


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory instead of handing it back; return whether this machine's C library can.

    By default every large tensor is mapped anew, and the kernel zeroes its pages one fault at a time: that was a
    tenth of a training step at 44M parameters (docs/performance.md). It holds for the whole process and until its
    end, so a command calls it for itself, and a program that trains from Python may.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        return False
    return bool(libc.mallopt(M_MMAP_MAX, NONE) and libc.mallopt(M_TRIM_THRESHOLD, NEVER))
