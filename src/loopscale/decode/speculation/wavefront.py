"""Wavefront: the tokens of one row that are on their way through the loops, one loop apart from each other.

Letters: B batch, D hidden, K loops.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.decode.sampling import Proposal
from loopscale.decode.speculation.draft_policy import DraftPolicy

Exits = tuple[int, ...]


@dataclass(slots=True)
class Place:
    """A token on its way. `draft`: the latest exit's opinion of it, None once full depth has confirmed it.

    origin, gap: the exit that put it there, and how sure it was. chance: that it stands.
    """

    token: int
    draft: Proposal | None = None
    origin: int = 0
    gap: float = 0.0
    chance: float = 1.0


@final
class Wavefront:
    """One row's tokens: `places[k]` is the one that loop k runs on in the coming pass. After it, all move on by one.

    `columns[k]` is the column that loop k writes next, that of its token where it has one. A loop without a token
    writes there too, and the token that comes later writes over it before anything can read it.
    """

    def __init__(self, num_loops: int, width: int, limit: int, ahead: int, policy: DraftPolicy) -> None:
        self.places: list[Place | None] = [None] * num_loops
        self.columns = [width] * num_loops
        self.end_column = width + limit - 1  # of the last new token, which never runs
        self.ahead = ahead
        self.policy = policy
        self.drafted = 0
        self.accepted = 0

    def token(self, k: int) -> int:
        """Return the token at loop k: any token where there is none."""
        place = self.places[k]
        return 0 if place is None else place.token

    def occupied(self, k: int) -> bool:
        """Return whether loop k has a token."""
        return self.places[k] is not None

    def unconfirmed(self, k: int) -> list[int]:
        """Return the drafted tokens at loop k and deeper, in the order of the text."""
        return [place.token for place in reversed(self.places[k:]) if place is not None and place.draft is not None]

    def successor(self, k: int) -> Proposal | None:
        """Return the draft that follows the token at loop k: what exit k is to judge."""
        place = self._after(k)
        return None if place is None else place.draft

    def begin(self, chosen: Proposal) -> None:
        """Let the first new token enter."""
        self.places[0] = Place(chosen.token)

    def end(self) -> None:
        """Nothing more to run."""
        self.places = [None] * len(self.places)

    def advance(self, proposals: dict[int, Proposal]) -> None:
        """Take in what the exits proposed after a pass, the deepest first, and move on."""
        last = len(self.places) - 1
        entering: Place | None = None
        for k in range(last, -1, -1):
            if self.places[k] is None:
                continue
            column = self.columns[k]  # of the token that ran; what exit k proposed stands in the next column
            self.columns[k] = column + 1
            if k not in proposals:
                continue
            follows, chosen = self._after(k), proposals[k]
            if follows is not None and follows.token == chosen.token:
                self._keep_draft(follows, k, chosen)
                continue
            if follows is not None:
                self._drop(k, column + 1)
                self.policy.learn(follows.origin, follows.gap, False)
            if k == last:
                entering = Place(chosen.token)
            elif column + 1 < self.end_column:
                entering = self._draft(k, chosen)
            if entering is not None or follows is not None:
                break  # nothing before this token is left
        self.places = [entering, *self.places[:-1]]

    def _keep_draft(self, place: Place, k: int, chosen: Proposal) -> None:
        if k < len(self.places) - 1:
            place.draft, place.chance = chosen, self.policy.chance(k, chosen.gap)
            return
        place.draft, place.chance = None, 1.0
        self.accepted += 1
        self.policy.learn(place.origin, place.gap, True)

    def _draft(self, k: int, chosen: Proposal) -> Place | None:
        """Return the place of a token that exit k drafts, or None if it should wait for a deeper exit."""
        chance = self.policy.chance(k, chosen.gap)
        together, unconfirmed = chance, 1
        for place in self.places:
            if place is not None and place.draft is not None:
                together, unconfirmed = together * place.chance, unconfirmed + 1
        if unconfirmed > self.ahead or not self.policy.pays(together):
            return None
        self.drafted += 1
        return Place(chosen.token, chosen, k, chosen.gap, chance)

    def _after(self, k: int) -> Place | None:
        """Return the token that follows the one at loop k."""
        for place in reversed(self.places[:k]):
            if place is not None:
                return place
        return None

    def _drop(self, k: int, column: int) -> None:
        """Forget every token behind the one at loop k, from `column` on: their cache is written over."""
        self.places[:k] = [None] * k
        self.columns[:k] = [min(before, column) for before in self.columns[:k]]


def loops_to_run(wavefronts: list[Wavefront]) -> range:
    """Return the loops of the coming pass, from the first to the last that has a token in some row."""
    at_loops = zip(*(wavefront.places for wavefront in wavefronts), strict=True)
    busy = [k for k, places in enumerate(at_loops) if any(places)]
    return range(busy[0], busy[-1] + 1)


def shifted(
    entering: Float[Tensor, "new 1 hidden"],
    carried: Float[Tensor, "before 1 hidden"],
    loops: range,
    carried_to: int,
    batch: int,
) -> Float[Tensor, "rows 1 hidden"]:
    """Return what the loops of the coming pass receive, (loops * B, 1, D).

    `entering` is for loop 0, (B, 1, D); `carried` for the loops from `carried_to` on. A loop without a token receives
    anything.
    """
    start, stop = (max(k - carried_to, 0) * batch for k in (loops.start, loops.stop))
    if loops.start > 0:
        return carried[start:stop]
    return torch.cat([entering.repeat(min(carried_to, loops.stop), 1, 1), carried[:stop]])
