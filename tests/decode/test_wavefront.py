"""Flights alone, against a made-up model whose exits are functions of the text: no tensors."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscale.decode.sampling import Proposal
from loopscale.decode.speculation.draft_policy import Always, WhereLikely
from loopscale.decode.speculation.wavefront import Wavefront, loops_to_run

WIDTH, LIMIT = 3, 12


def digest(*key):
    return int(hashlib.sha256(repr(key).encode()).hexdigest(), 16)


class Exits:
    """Exit k says the next token of a text; shallow ones often differ from the last. Reading text checks the cache."""

    def __init__(self, seed, num_loops, wrong):
        self.seed, self.num_loops, self.wrong = seed, num_loops, wrong
        self.cache = [{} for _ in range(num_loops)]  # loop -> column -> token that wrote it

    def says(self, k, text):
        right = digest(self.seed, text) % 7
        miss = k + 1 < self.num_loops and digest(self.seed, k, text) % 100 < self.wrong
        return Proposal((right + 1) % 7 if miss else right, gap=float(digest(k, text) % 8))

    def run(self, k, column, token, prompt):
        """Write a token and return the text that loop k finds in its cache up to it."""
        self.cache[k][column] = token
        return prompt + tuple(self.cache[k][c] for c in range(WIDTH, column + 1))


def decode(exits, reading, ahead, policy):
    """Run one wavefront to the end; return its text and the number of passes."""
    prompt, last = ("p",) * WIDTH, exits.num_loops - 1
    wavefront = Wavefront(exits.num_loops, WIDTH, LIMIT, ahead, policy)
    text, passes = [exits.says(last, prompt).token], 0
    wavefront.begin(Proposal(text[0]))
    while len(text) < LIMIT:
        said = {}
        for k in loops_to_run([wavefront]):
            place, column = wavefront.places[k], wavefront.columns[k]
            if place is None:
                exits.cache[k][column] = "garbage"
                continue
            found = exits.run(k, column, place.token, prompt)
            if k in reading:
                said[k] = exits.says(k, found)
        if last in said:
            text.append(said[last].token)
        wavefront.advance(said)
        assert sum(place is not None and place.draft is not None for place in wavefront.places) <= ahead
        passes += 1
    return text, passes


def greedy(exits):
    text = []
    while len(text) < LIMIT:
        text.append(exits.says(exits.num_loops - 1, ("p",) * WIDTH + tuple(text)).token)
    return text


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_loops=st.integers(2, 6),
    wrong=st.sampled_from([0, 10, 50, 100]),
    ahead=st.integers(1, 8),
    adaptive=st.booleans(),
    data=st.data(),
)
def test_the_text_is_that_of_the_last_exit(seed, num_loops, wrong, ahead, adaptive, data):
    exits = Exits(seed, num_loops, wrong)
    reading = data.draw(st.sets(st.integers(0, num_loops - 2), min_size=1)) | {num_loops - 1}
    text, passes = decode(exits, reading, ahead, WhereLikely(num_loops, 0.3) if adaptive else Always())
    assert text == greedy(exits)
    assert passes <= (LIMIT - 1) * num_loops  # never more than without drafts


@pytest.mark.parametrize(("right_from", "passes"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_a_token_costs_as_many_passes_as_the_first_exit_that_is_right(right_from, passes):
    """Exits before `right_from` are always wrong; the mend enters at once, nothing waits for full depth."""
    exits = Exits(0, 4, 100)
    says = exits.says
    exits.says = lambda k, text: says(3 if k >= right_from else 0, text)
    text, took = decode(exits, {0, 1, 2, 3}, 16, Always())
    assert text == greedy(exits)
    assert took == (LIMIT - 2) * passes + 4  # the last token that runs has no successor to wait for
