"""Folder of a retrofitted model: its weights, the original's tokenizer, and a record of what was done."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from loopscale.convert.checkpoint import write_tokenizer
from loopscale.convert.destination import check_destination, written_whole
from loopscale.mechanism import Named
from loopscale.model import LoopedForCausalLM
from loopscale.model_card import Known, hub_id, named
from loopscale.retrofit.surgery import retrofit
from loopscale.storage import write_json

RECORD = "retrofit.json"


@final
@dataclass(frozen=True)
class RetrofitRecord:
    """Where a looped model comes from: the original, and its core, layers `first` up to and without `last`."""

    source: str
    first: int
    last: int
    num_loops: int
    parts: Mapping[str, Any]


def retrofit_folder(
    source: str,
    destination: str | Path,
    core: tuple[int, int],
    num_loops: int = 4,
    *,
    overwrite: bool = False,
    **parts: Named,
) -> LoopedForCausalLM:
    """Write the retrofit of a pretrained model, with its tokenizer, to the folder `destination`, whole or not at all.

    Arguments are those of `retrofit`. Raises `InputError` as it does, and for a destination that exists unless
    `overwrite` says so.
    """
    destination = Path(destination)
    check_destination(source, destination, overwrite)
    model = retrofit(source, core, num_loops, **parts)
    with written_whole(destination) as folder:
        model.save_pretrained(folder)
        made_from = (
            f"{named(source)}, whose layers {core[0]} to {core[1] - 1} are looped, and which it is with one loop"
        )
        model.write_card(folder, Known(made_from=made_from, base_model=hub_id(source)))
        write_tokenizer(source, folder, model.config.vocab_size)
        write_json(folder / RECORD, RetrofitRecord(source, *core, num_loops, parts))
    return model
