"""Code beside the weights: the file with which transformers loads a folder of ours where loopscale was not imported.

Servers and harnesses load models by `trust_remote_code=True`, and nobody can put `import loopscale` in front of them.
The file holds no model: it asks for the package that does, so that a folder stays as new as what is installed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

GENERIC = "This model card has been automatically generated"  # by transformers
MODULE = "modeling_loopscale"
AUTO_MAP: Mapping[str, str] = {
    "AutoConfig": f"{MODULE}.LoopedConfig",
    "AutoModelForCausalLM": f"{MODULE}.LoopedForCausalLM",
}
# transformers reads what it imports before it runs it, and says what is not installed
CODE = '''"""A looped language model. transformers imports this file where it is told trust_remote_code=True.

It needs the package loopscale: pip install loopscale. After `import loopscale` nothing needs to be trusted.
"""

from loopscale import LoopedConfig, LoopedForCausalLM

__all__ = ["LoopedConfig", "LoopedForCausalLM"]
'''


class Importable:
    """A class that the file asks the package for, so that its own source is not what to copy beside the weights.

    transformers marks every class that came by trusted code, and saves the source of those with each model.
    """

    @classmethod
    def register_for_auto_class(cls, *args: Any, **kwargs: Any) -> None:
        """Let transformers mark classes that somebody derives; ours need no copy."""
        if not cls.__module__.startswith("loopscale."):
            super().register_for_auto_class(*args, **kwargs)  # type: ignore[misc]


class RemoteCode(Importable, PreTrainedModel):
    """`save_pretrained` that writes, on request, what `trust_remote_code=True` looks for."""

    config: PreTrainedConfig

    def save_pretrained(self, save_directory: Any, *args: Any, auto_map: bool | None = None, **kwargs: Any) -> None:
        """Write config, weights and generation settings as transformers does.

        `auto_map`: write a file too by which `from_pretrained(..., trust_remote_code=True)` finds the package without
        an import (it has to be installed). It stays so for later saves, and where the folder is loaded and saved again.
        """
        if auto_map is not None:
            vars(self.config).pop("auto_map", None)
        if auto_map:
            self.config.auto_map = dict(AUTO_MAP)
        if getattr(self.config, "auto_map", None) and kwargs.get("is_main_process", True):
            folder = Path(save_directory)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{MODULE}.py").write_text(CODE, encoding="utf-8")
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self.write_card(Path(save_directory))

    def write_card(self, folder: Path) -> None:
        """Write a model card into a folder that was saved."""

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        """Put our card in the place of the one about nothing that transformers makes where a repository has none."""
        card = Path(working_dir) / "README.md"
        if card.is_file() and GENERIC in card.read_text(encoding="utf-8"):
            card.unlink()
            self.write_card(card.parent)
        return super()._upload_modified_files(working_dir, *args, **kwargs)
