"""Schedules of looks: numbers of seeds, shares of the error, and what is refused."""

import pytest
from test_flags import parse

from experiments.setup import looks
from experiments.setup.looks import Looks
from experiments.setup.validate import ConfigError

# ml_collections loads config files by a method that Python means to remove.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize(
  ("first", "last", "counts"),
  [
    (3, 20, (3, 4, 6, 8, 11, 15, 20)),
    (3, 16, (3, 4, 6, 8, 11, 16)),
    (2, 20, (2, 3, 4, 5, 7, 10, 14, 20)),
    (5, 6, (5, 6)),
    (4, 4, (4,)),
  ],
)
def test_numbers_of_seeds_grow_in_nearly_equal_ratios(first, last, counts):
  assert looks.schedule(first, last) == counts


@pytest.mark.parametrize("last", range(3, 200, 7))
def test_shares_add_up_to_the_whole_error(last):
  found = looks.declared((0, 1, 2), last)
  assert sum(found.weights) == pytest.approx(1)
  assert found.counts[-1] == last == len({*found.seeds})
  assert Looks(**found.to_json()) == looks.from_json(found.to_json()) == found


def test_seeds_follow_those_of_the_plan():
  found = looks.declared((5, 1), 5)
  assert found.seeds == (5, 1, 0, 2, 3) and found.counts == (2, 3, 4, 5)
  assert found.each[1].seeds == (5, 1, 0)
  assert [found.reached(x) for x in ([5], [1, 5], [0, 1, 5, 9], [5, 0, 2])] == [
    *(0, 1, 2, 0)
  ]
  # One seed has no test: two are the first look.
  assert looks.declared((7,), 4).counts == (2, 3, 4)


@pytest.mark.parametrize(
  "values",
  [
    [],
    {"seeds": [0, 1], "counts": [2]},
    {"seeds": [0, 1], "counts": [2], "weights": ["1"]},
    {"seeds": [0, 1], "counts": [2], "weights": [1.5]},
    {"seeds": [0, 1], "counts": [1, 2], "weights": [0.9, 0.9]},
    {"seeds": [0, 1], "counts": [2], "weights": [float("nan")]},
    {"seeds": [0, 1], "counts": [2, 2], "weights": [0.5, 0.5]},
    {"seeds": [0, 1], "counts": [3], "weights": [1.0]},
    {"seeds": [0, 0], "counts": [2], "weights": [1.0]},
    {"seeds": [0, 1], "counts": [], "weights": []},
  ],
)
def test_a_damaged_schedule_is_one_sentence(values):
  with pytest.raises(ConfigError, match="^looks") as caught:
    looks.from_json(values)
  assert "\n" not in str(caught.value)


def test_a_command_says_again_how_long_it_goes_on():
  request = parse("--until=resolved", "--max_seeds=12")
  assert (request.until, request.max_seeds) == ("resolved", 12)
  assert request.command("sweep").endswith("--until=resolved --max_seeds=12")
  assert "until" not in parse().command("sweep")


@pytest.mark.parametrize(
  ("words", "says"),
  [
    (["--until=resolve"], "Did you mean 'resolved'? Write --until=resolved"),
    (["--until=foo"], "--until=foo: Write --until=resolved"),
    (["--max_seeds=9"], "--max_seeds=9 is the limit of --until=resolved: write both"),
    (["--until=resolved", "--max_seeds=0"], "--max_seeds"),
    (["--until=resolved", "--max_seeds=many"], "--max_seeds"),
    (["--untill=resolved"], "Did you mean '--until'?"),
    (["--until="], "Write --until=resolved"),
  ],
)
def test_flags_that_say_nothing_are_one_sentence(words, says):
  with pytest.raises(ConfigError) as caught:
    parse(*words)
  assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("most", [2, 1001])
def test_a_limit_has_room_for_the_seeds_of_the_plan(most):
  with pytest.raises(ConfigError, match=f"--max_seeds={most}: the plan has 3 seeds"):
    looks.declared((0, 1, 2), most)


def test_one_look_has_two_seeds_at_least():
  assert looks.declared((0,), 2).counts == (2,)
  with pytest.raises(ConfigError, match="write a number from 2"):
    looks.declared((0,), 1)
