"""A closed label set as a tree: only a label's next token may come next."""

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.labels import LabelTree

STOP = 0
label_sets = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=6, unique=True
)


@given(label_sets, st.data())
def test_every_walk_through_the_allowed_tokens_ends_on_a_label(labels, data):
    tree = LabelTree([*label, STOP] for label in labels)
    written: list[int] = []
    while options := tree.allowed(written):
        written.append(data.draw(st.sampled_from(options)))
    assert tuple(written[:-1]) in labels
    assert written[-1] == STOP


@given(label_sets)
def test_every_label_can_be_written(labels):
    tree = LabelTree([*label, STOP] for label in labels)
    for label in labels:
        answer = [*label, STOP]
        assert all(token in tree.allowed(answer[:length]) for length, token in enumerate(answer))


@given(label_sets, st.data())
def test_forced_tokens_are_those_without_a_choice_and_all_of_them(labels, data):
    tree = LabelTree([*label, STOP] for label in labels)
    label = [*data.draw(st.sampled_from(labels)), STOP]
    written = label[: data.draw(st.integers(0, len(label)))]
    forced = tree.forced(written)
    for length in range(len(forced)):
        assert tree.allowed([*written, *forced[:length]]) == [forced[length]]
    assert len(tree.allowed([*written, *forced])) != 1


def test_a_label_that_begins_another_may_stop_or_go_on():
    tree = LabelTree([[1, STOP], [1, 2, STOP]])
    assert tree.allowed([]) == [1]
    assert sorted(tree.allowed([1])) == [STOP, 2]
    assert tree.forced([1, 2]) == [STOP]
    assert tree.forced([1]) == []


def test_nothing_may_follow_a_whole_label_or_what_is_no_label():
    tree = LabelTree([[1, STOP], [2, STOP]])
    assert tree.allowed([1, STOP]) == []
    assert tree.allowed([3]) == []


def test_the_same_label_twice_is_one_choice():
    assert LabelTree([[1, STOP], [1, STOP]]).forced([]) == [1, STOP]
