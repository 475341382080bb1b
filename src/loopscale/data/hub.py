"""The Hugging Face hub, where there is a network; one clear sentence where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from loopscale.errors import InputError

WIKITEXT = {"wikitext-2": "wikitext-2-raw-v1", "wikitext-103": "wikitext-103-raw-v1"}


def reachable() -> bool:
    """Say whether the hub answers: one short request, where the libraries would retry for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # the HTTP client and so its errors differ between versions of huggingface_hub
        return False
    return True


def wikitext(name: str) -> tuple[list[str], list[str]]:
    """Return train and valid of `Salesforce/wikitext`, raw; a split's rows (its lines) are one document.

    Raises:
        InputError: the hub cannot be reached and the data set is not in the local cache of `datasets`.
    """
    from datasets import load_dataset  # takes seconds to import, and only a corpus of the hub needs it

    online = reachable()
    try:
        with _offline_mode(not online):
            splits = load_dataset("Salesforce/wikitext", WIKITEXT[name])
    except (OSError, ValueError) as error:
        reason = _first_line(error) if online else "no network, and not in the local cache"
        raise InputError(
            f"corpus '{name}' could not be loaded from the Hugging Face hub ({reason}): "
            "connect, or download it elsewhere and name a folder of its train and valid files as the corpus."
        ) from error
    return _joined(splits["train"]["text"]), _joined(splits["validation"]["text"])


def _joined(rows: list[str]) -> list[str]:
    return ["".join(row if row.endswith("\n") else f"{row}\n" for row in rows)]


@contextmanager
def _offline_mode(offline: bool) -> Iterator[None]:
    """Tell `datasets` the truth about the network, so that it looks into its cache without retrying."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = offline
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
