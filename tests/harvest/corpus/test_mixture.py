"""Sources keep their shares at any time, in an order that only counts decide."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.corpus.mixture import Mixture

WEIGHTS = st.lists(
    st.one_of(st.integers(1, 20).map(float), st.sampled_from([0.1, 0.2, 0.3, 0.7, 1e-3, 2.5])),
    min_size=1,
    max_size=6,
)


def sequence(mixture: Mixture, lengths: list[int]) -> list[int]:
    """The source of every document, where source i has lengths[i] documents from here on."""
    left, order = list(lengths), []
    while (source := mixture.next()) is not None:
        if left[source] == 0:
            mixture.drop(source)
            continue
        left[source] -= 1
        mixture.add(source)
        order.append(source)
    return order


def reference(weights: list[float], lengths: list[int]) -> list[int]:
    """Simulated in time: in each document's turn, of the sources that would not run ahead of
    their share, the one whose next document falls due first."""
    left, order = dict(enumerate(lengths)), []
    share = {source: Fraction(str(weight)) for source, weight in enumerate(weights)}
    since = dict.fromkeys(share, 0)
    while share:
        turn = sum(since[source] for source in share) + 1
        speed = {source: share[source] / sum(share.values()) for source in share}
        due = {
            source: (Fraction(since[source] + 1) / speed[source], source)
            for source in share
            if since[source] < speed[source] * turn
        }
        source = min(due, key=lambda candidate: due[candidate])
        if left[source] == 0:
            del share[source]
            since = dict.fromkeys(share, 0)
            continue
        left[source] -= 1
        since[source] += 1
        order.append(source)
    return order


@given(WEIGHTS, st.integers(1, 300))
def test_every_source_has_its_share_within_one_after_any_number_of_documents(weights, documents):
    mixture, exact = Mixture(weights), [Fraction(str(weight)) for weight in weights]
    for number in range(1, documents + 1):
        mixture.add(mixture.next())
        for count, weight in zip(mixture.counts, exact, strict=True):
            assert abs(count - number * weight / sum(exact)) < 1


@given(WEIGHTS, st.data())
@settings(deadline=None)
def test_the_order_is_that_of_the_reference(weights, data):
    lengths = [data.draw(st.integers(0, 25)) for _ in weights]
    assert sequence(Mixture(weights), lengths) == reference(weights, lengths)


@given(WEIGHTS, st.data())
@settings(deadline=None)
def test_resumed_from_any_state_the_order_goes_on_as_before(weights, data):
    lengths = [data.draw(st.integers(0, 12)) for _ in weights]
    order = sequence(Mixture(weights), lengths)
    done, left, mixture = 0, list(lengths), Mixture(weights)
    while (source := mixture.next()) is not None:
        resumed = Mixture(weights, mixture.counts, mixture.live)
        assert sequence(resumed, left) == order[done:]
        if left[source] == 0:
            mixture.drop(source)
            continue
        left[source] -= 1
        done += 1
        mixture.add(source)


def test_equal_weights_take_turns_and_the_others_go_on_when_one_ends():
    assert sequence(Mixture([1.0, 1.0, 1.0]), [1, 3, 2]) == [0, 1, 2, 1, 2, 1]


def test_a_weight_of_three_to_one():
    assert sequence(Mixture([0.3, 0.1]), [6, 2]) == [0, 0, 0, 1, 0, 0, 0, 1]
