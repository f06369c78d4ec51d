from manyicl_core.method.shot_warnings import shots_warnings


def test_only_what_was_asked_for_and_is_not_shown_is_a_warning() -> None:
    assert not [*shots_warnings(None, 5), *shots_warnings(5, 5), *shots_warnings(0, 0)]
    [warned] = shots_warnings(16, 5)
    assert warned["code"] == "max_shots_not_met"
    assert "16 demonstrations were asked for and 5 are shown" in warned["message"]
