"""Model card: what a folder of weights says of itself in its README.md, by huggingface_hub's own cards.

It says what is known where it is written, and names what is not. An edited card is never written over.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from huggingface_hub import ModelCard, ModelCardData

from loopscale.display import in_markdown, number
from loopscale.storage import resolved

if TYPE_CHECKING:
    from loopscale.model import LoopedConfig

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
MARK = re.compile(r"<!-- written by loopscale \(([0-9a-f]{16})\): once edited, it is kept as it is -->")
TAGS = ("looped-language-model", "recurrent-depth", "early-exit", "loopscale")
# the fields that say what fills the loop, in the order of the card
PARTS = ("injection", "residual_part", "relaxation", "recurrence", "readout", "supervision")


@final
@dataclass(frozen=True)
class Known:
    """What is known of a model beside its configuration; None or empty where it is not.

    corpus, sha256: the text, by name and content; steps: of the optimizer; made_from: what its weights come from, in
    words; base_model: its id on the hub, which links the two there.
    perplexity: of exits 1..K, measured on `measured_on`, in words. verdicts: by coordinate, in words; audited: they
    were measured, not worked out from the configuration.
    """

    corpus: str | None = None
    sha256: str | None = None
    steps: int | None = None
    made_from: str | None = None
    perplexity: tuple[float, ...] = ()
    measured_on: str | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)
    audited: bool = False
    base_model: str | None = None

    @property
    def unknown(self) -> list[str]:
        """What the card has to leave open."""
        missing = {
            "the licence, which its author adds (`license:` above)": True,
            "the text it was trained on": self.corpus is None,
            "the perplexity of its exits (`loopscale evaluate` measures it)": not self.perplexity,
            "whether its loss controls its state (`loopscale audit` measures it)": not self.verdicts,
        }
        return [what for what, is_missing in missing.items() if is_missing]


def card_of(config: "LoopedConfig", parameters: int, known: Known | None = None) -> ModelCard:
    """Return the card of a model. Names in it are text: none of them is obeyed by Markdown, YAML or the template."""
    known = known or Known()
    data = ModelCardData(
        base_model=known.base_model, library_name="transformers", pipeline_tag="text-generation", tags=list(TAGS)
    )
    shown: dict[str, Any] = {
        "sizes": _sizes(config, parameters),
        "loops": config.trained_loops,
        "fewer": max((config.trained_loops or 1) - 1, 1),
        "new": max(1, min(32, config.max_position_embeddings - 8)),  # tokens of the example
        "known": known,
        "exits": [(k, number(value)) for k, value in enumerate(known.perplexity, 1)],
        "verdicts": [(in_markdown(name), in_markdown(verdict)) for name, verdict in known.verdicts.items()],
        "named": {name: in_markdown(getattr(known, name) or "") for name in ("corpus", "sha256", "made_from")},
        "measured_on": in_markdown(known.measured_on or ""),
    }
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **shown)
    card.text = f"\n<!-- written by loopscale ({_digest(str(card))}): once edited, it is kept as it is -->\n{card.text}"
    return card


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card into a folder, unless somebody's own, or one that was edited, is there."""
    place = folder / CARD
    if not place.exists() or is_untouched(place.read_text(encoding="utf-8", errors="replace")):
        place.write_text(str(card), encoding="utf-8")


def named(source: str) -> str:
    """Return the name by which a card tells of a model: a path of this machine is nobody else's business."""
    return resolved(Path(source)).name if Path(source).exists() else source


def hub_id(source: str) -> str | None:
    """Return the repository of the hub that a readable source comes from; None for what lies on this machine."""
    return None if Path(source).exists() else "/".join(source.split("/")[:2])  # OWNER/REPOSITORY/FILE.gguf too


def is_untouched(text: str) -> bool:
    """Return whether a card is as this library wrote it."""
    found = MARK.search(text)
    return found is not None and _digest(MARK.sub("", text)) == found[1]


def _digest(text: str) -> str:
    return sha256("".join(text.split()).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _sizes(config: "LoopedConfig", parameters: int) -> list[tuple[str, str]]:
    layers = f"{config.num_stack_layers}, applied {config.trained_loops} times"
    beside = [(config.num_prelude_layers, "before"), (config.num_coda_layers, "after")]
    around = " and ".join(f"{count} {where}" for count, where in beside if count)
    parts = "; ".join(f"{name.removesuffix('_part')} {in_markdown(getattr(config, name))}" for name in PARTS)
    return [
        ("parameters", f"{parameters:,}"),
        ("layers that are looped", layers),
        *([("layers that run once", around)] if around else []),
        ("hidden size, heads", f"{config.hidden_size}, {config.num_attention_heads}"),
        ("vocabulary", f"{config.vocab_size:,}"),
        ("positions", f"{config.max_position_embeddings:,} ({config.position_embedding})"),
        ("the loop", parts),
    ]
