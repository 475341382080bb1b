"""Folders to documents: one walk, splits by name, and a word on everything that is not read."""

from loopscale.data.folders.reading import Folder, read_folder
from loopscale.data.folders.splits import split_by_name
from loopscale.data.folders.traversal import printable, walk

__all__ = ["Folder", "printable", "read_folder", "split_by_name", "walk"]
