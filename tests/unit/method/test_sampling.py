"""Which demonstrations, in which order: permutations that depend on their counters alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.sampling import context_order, mixing_order, training_order

sizes = st.integers(0, 40)
seeds = st.integers(0, 2**31 - 1)
label_lists = st.lists(st.sampled_from(["red", "green", "blue", "grey"]), max_size=40)


@given(seeds, st.integers(0, 5), st.text(max_size=8), st.integers(0, 5), label_lists)
def test_a_natural_training_order_is_a_permutation_and_comes_again(seed, epoch, task, round_, outputs):
    order = training_order(seed, epoch, task, round_, outputs)
    assert sorted(order) == list(range(len(outputs)))
    assert order == training_order(seed, epoch, task, round_, outputs)


@given(seeds, st.integers(0, 5), sizes)
def test_a_mixing_order_is_a_permutation_and_comes_again(seed, epoch, size):
    order = mixing_order(seed, epoch, size)
    assert sorted(order) == list(range(size))
    assert order == mixing_order(seed, epoch, size)


def test_every_counter_of_a_training_order_counts():
    changed = [(1, 0, "a", 0), (2, 0, "a", 0), (1, 1, "a", 0), (1, 0, "b", 0), (1, 0, "a", 1)]
    for balanced in (False, True):
        orders = {tuple(training_order(*counters, ["x", "y"] * 15, balanced)) for counters in changed}
        assert len(orders) == len(changed)


def test_every_counter_of_a_context_order_counts():
    changed = [(1, 0, "a"), (2, 0, "a"), (1, 1, "a"), (1, 0, "b")]
    for balanced in (False, True):
        orders = {tuple(context_order(*counters, ["x", "y"] * 15, balanced)) for counters in changed}
        assert len(orders) == len(changed)


def test_training_and_contexts_are_drawn_apart():
    outputs = ["x"] * 30
    for balanced in (False, True):
        assert training_order(1, 0, "a", 0, outputs, balanced) != context_order(1, 0, "a", outputs, balanced)


@given(seeds, st.integers(0, 3), label_lists, st.booleans())
def test_a_context_order_is_a_permutation_and_comes_again(seed, draw, outputs, balanced):
    order = context_order(seed, draw, "task", outputs, balanced)
    assert sorted(order) == list(range(len(outputs)))
    assert order == context_order(seed, draw, "task", outputs, balanced)


@given(seeds, label_lists)
def test_a_balanced_order_shows_labels_equally_often_as_long_as_all_have_examples(seed, outputs):
    order = context_order(seed, 0, "task", outputs, True)
    left = Counter(outputs)
    shown = Counter(dict.fromkeys(left, 0))
    for index in order:
        assert max(shown.values()) - min(shown.values()) <= 1
        shown[outputs[index]] += 1
        left[outputs[index]] -= 1
        if not all(left.values()):
            break


@given(seeds, label_lists)
def test_a_balanced_order_falls_back_on_the_labels_that_are_left(seed, outputs):
    order = context_order(seed, 0, "task", outputs, True)
    total = Counter(outputs)
    shown: Counter[str] = Counter()
    for index in order:
        shown[outputs[index]] += 1
        behind = {label for label in total if shown[label] < shown[outputs[index]] - 1}
        assert all(shown[label] == total[label] for label in behind)


def test_labels_do_not_always_come_in_the_same_order():
    outputs = ["red", "green", "blue"] * 20
    order = context_order(1, 0, "task", outputs, True)
    turns = {tuple(outputs[index] for index in order[start : start + 3]) for start in range(0, 60, 3)}
    assert len(turns) > 2


@given(seeds, label_lists)
def test_a_balanced_training_order_shows_every_label_equally_often_to_its_end(seed, outputs):
    order = training_order(seed, 0, "task", 0, outputs, balanced=True)
    shown = Counter(dict.fromkeys(outputs, 0))
    for index in order:
        shown[outputs[index]] += 1
        assert max(shown.values()) - min(shown.values()) <= 1
    assert set(shown.values()) <= {max(Counter(outputs).values(), default=0)}
    assert order == training_order(seed, 0, "task", 0, outputs, balanced=True)


@given(seeds, label_lists)
def test_a_balanced_training_order_shows_the_rare_again_and_again_in_turn(seed, outputs):
    order = training_order(seed, 0, "task", 0, outputs, balanced=True)
    assert set(order) == set(range(len(outputs)))
    times = Counter(order)
    for label in set(outputs):
        of_label = [times[index] for index in range(len(outputs)) if outputs[index] == label]
        assert max(of_label) - min(of_label) <= 1


def test_two_rare_examples_stand_against_six_frequent_ones():
    outputs = ["common"] * 6 + ["rare"] * 2
    order = training_order(3, 0, "task", 0, outputs, balanced=True)
    assert Counter(order) == {**dict.fromkeys(range(6), 1), 6: 3, 7: 3}
    rare = [index for index in order if index >= 6]
    assert rare[:2] == rare[2:4] == rare[4:6]
