"""Registration of the looped model with transformers' Auto classes, from `import loopscale` on.

Importing the model takes seconds, because torch and transformers do. So it is registered at once where transformers'
Auto classes are there already, and otherwise as soon as somebody imports them.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, final

AUTO = "transformers.models.auto.configuration_auto"
MODEL = "loopscale.model"  # registers itself when it is imported
WATCHED = {"transformers", "loopscale"}


def register_soon() -> None:
    """Register the model now if the Auto classes are imported, else right after they are."""
    if AUTO in sys.modules:
        import_module(MODEL)
    else:
        sys.meta_path.insert(0, _AfterAuto())


@final
class _AfterAuto(MetaPathFinder):
    """Imports the model after the Auto classes, once no module of either package is half imported."""

    def __init__(self) -> None:
        self.depth = 0

    # `path` may be a namespace package's, which is no Sequence
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the other finders find, so changed that the end of its import is noticed."""
        if fullname.partition(".")[0] not in WATCHED:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Any) -> None:
        execute = loader.exec_module

        def counted(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if not self.depth and AUTO in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                import_module(MODEL)

        loader.exec_module = counted
