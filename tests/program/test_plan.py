"""The memory plan: pieces that live together never overlap, and little is wasted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deepkit.backends import ALIGNMENT
from deepkit.program import Piece, lower_bound, plan


@st.composite
def pieces(draw):
    found = []
    for _ in range(draw(st.integers(0, 24))):
        born = draw(st.integers(0, 30))
        found.append(Piece(draw(st.integers(0, 5000)), born, born + draw(st.integers(0, 10))))
    return found


def live_together(a, b):
    return a.born <= b.dies and b.born <= a.dies


@settings(max_examples=200, deadline=None)
@given(pieces())
def test_live_pieces_never_overlap(given_pieces):
    if not given_pieces:
        return
    offsets, peak = plan(given_pieces)
    assert peak >= lower_bound(given_pieces)
    for i, (a, at) in enumerate(zip(given_pieces, offsets, strict=True)):
        assert at % ALIGNMENT == 0
        assert at + a.nbytes <= peak
        for b, other in list(zip(given_pieces, offsets, strict=True))[i + 1 :]:
            if live_together(a, b) and a.nbytes and b.nbytes:
                assert at + a.nbytes <= other or other + b.nbytes <= at


@settings(max_examples=200, deadline=None)
@given(pieces())
def test_the_lower_bound_is_what_lives_at_once(given_pieces):
    def rounded(nbytes):
        return -(-nbytes // ALIGNMENT) * ALIGNMENT

    moments = range(42)
    alive = [
        sum(rounded(p.nbytes) for p in given_pieces if p.born <= at <= p.dies) for at in moments
    ]
    assert lower_bound(given_pieces) == max(alive)


def test_a_chain_of_layers_needs_two_of_them():
    chain = [Piece(1024, i, i + 1) for i in range(10)]
    assert plan(chain)[1] == 2048


def test_a_gap_takes_a_piece_of_just_its_size():
    stays, goes, comes, large = (128, 5, 7), (128, 4, 6), (128, 3, 4), (192, 4, 7)
    found = [Piece(*p) for p in (stays, goes, comes, large)]
    assert plan(found)[1] == lower_bound(found) == 448
