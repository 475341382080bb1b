"""Hugging Face hub: what is cached is used at once, the rest where the hub answers, or one clear sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from loopscale.errors import InputError

T = TypeVar("T")

WIKITEXT = {"wikitext-2": "wikitext-2-raw-v1", "wikitext-103": "wikitext-103-raw-v1"}
SERVER_ERROR = 500


class NotLoaded(Exception):
    """What the hub and its cache do not give, and why."""


def trouble() -> str | None:
    """Return why the hub cannot be asked, None if it can: one short request, where its libraries retry for long."""
    if constants.HF_HUB_OFFLINE:
        return "no network is allowed (HF_HUB_OFFLINE)"
    try:
        status = get_session().head(constants.ENDPOINT, timeout=10).status_code
    except Exception:  # the HTTP client and so its errors differ between versions of huggingface_hub
        return "no network"
    return f"the hub answers {status}" if status >= SERVER_ERROR else None


def cached_first(load: Callable[[bool], T]) -> T:
    """Return what `load(offline)` gives: from the cache, and only where that fails from the hub.

    Raises `NotLoaded` with the reason if neither gives it, whatever the libraries raised.
    """
    try:
        return load(True)
    except Exception as error:  # not there, or damaged; the libraries raise whatever they come across
        missing = error
    if why := trouble():
        raise NotLoaded(f"{why}, and not in the local cache") from missing
    try:
        return load(False)
    except Exception as error:
        raise NotLoaded(f"{type(error).__name__}: {_first_line(error)}") from error


def wikitext(name: str) -> tuple[list[str], list[str]]:
    """Return train and valid of `Salesforce/wikitext`, raw; a split's rows (its lines) are one document.

    Raises:
        InputError: neither the local cache of `datasets` nor the hub gives it.
    """

    def load(offline: bool) -> tuple[list[str], list[str]]:
        from datasets import load_dataset  # takes seconds to import, and only a corpus of the hub needs it

        with _offline_mode(offline):
            splits: Any = load_dataset("Salesforce/wikitext", WIKITEXT[name])
        return _joined(splits["train"]["text"]), _joined(splits["validation"]["text"])

    try:
        return cached_first(load)
    except NotLoaded as error:
        raise InputError(
            f"corpus '{name}' could not be loaded from the Hugging Face hub ({error}): "
            "connect, or download it elsewhere and name a folder of its train and valid files as the corpus."
        ) from error


def _joined(rows: list[str]) -> list[str]:
    return ["".join(row if row.endswith("\n") else f"{row}\n" for row in rows)]


@contextmanager
def _offline_mode(offline: bool) -> Iterator[None]:
    """Keep `datasets` and the hub's client off the network, so that they look into their cache without retrying."""
    from datasets import config

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if offline:
        config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0][:200].rstrip(".")) or "it gives no reason"
