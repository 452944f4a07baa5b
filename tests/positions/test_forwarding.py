"""Wrappers, sums and schedules answer every member of their base; none is forgotten."""

import dataclasses
from typing import ClassVar

import pytest

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.layered import Layered
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.forwarding import Combined, forward, of_field, of_first_layer
from transformer_jax.members import HOOK, VALUE, members
from transformer_jax.positions import PositionalEncoding, positions
from transformer_jax.positions.base import HOOKS
from transformer_jax.positions.shared.schedule import Part, Schedule
from transformer_jax.positions.shared.wrapper import Wrapper

ENCODING = {
  "declarations": "relative per_layer integer_positions needs_full_text centred ids"
  " extrapolation",
  "hooks": "assign_positions embed token_data accumulate temperature rotate"
  " transform_qk bias mask score values full_scores prepare borrow",
  "questions": "init constants num_positions stable_length cross in_layer",
  "forms": "bidirectional layer overrides name tile_local",
}
ENCODING = {kind: {*names.split()} for kind, names in ENCODING.items()}
FORWARDERS = [
  (Wrapper, PositionalEncoding),
  (Part, PositionalEncoding),
  (Schedule, PositionalEncoding),
  (Sum, Variant),
  (Layered, Variant),
]


def test_the_lists_of_this_file_hold_every_member():
  assert set().union(*ENCODING.values()) == {*members(PositionalEncoding)}
  assert {*HOOKS} == ENCODING["hooks"]


@pytest.mark.parametrize("cls, base", FORWARDERS, ids=lambda cls: cls.__name__)
def test_every_member_of_the_base_is_answered(cls, base):
  assert {*members(base)} - {*vars(cls)} == set()


class Later:
  """What a base class of a later version has besides: a hook and a declaration."""

  twist: ClassVar[bool] = False

  def bend(self, params, x):
    return x


class Bent(Later):
  twist = True

  def bend(self, params, x):
    return x + params["by"]


@dataclasses.dataclass(frozen=True)
class Inside(Later):
  encoding: Later = Bent()


@dataclasses.dataclass(frozen=True)
class First(Later):
  parts: tuple = (Bent(), Later())
  twist = Combined(any)

  def layer(self, n):
    return self.parts[n]


def test_a_new_member_is_passed_on():
  assert members(Later) == {"twist": VALUE, "bend": HOOK}
  forward(Inside, Later, hook=of_field("encoding"), value=of_field("encoding"))
  forward(First, Later, hook=of_first_layer)
  for outer in (Inside(), First()):
    assert outer.twist and outer.bend({"by": 2}, 1) == 3
  assert not First((Later(), Later())).twist


@pytest.mark.parametrize(
  "given, missing",
  [
    ({}, "twist, bend"),
    ({"hook": of_first_layer}, "twist"),
    ({"hook": lambda name: None, "value": of_first_layer}, "bend"),
  ],
)
def test_a_new_member_that_nobody_answers_is_refused(given, missing):
  class Forgetful(Later):
    """It defines neither."""

  with pytest.raises(TypeError, match=f"Forgetful does not define {missing} of Later"):
    forward(Forgetful, Later, **given)
  added = vars(Forgetful).keys() & members(Later).keys()
  assert not added, "nothing is added where something is missing"


class Marked(PositionalEncoding):
  """Answers each member with its name, and hooks with the parameters they get."""

  def overrides(self, hook):
    return False

  def layer(self, n):
    return self


for _name in ENCODING["declarations"] | ENCODING["questions"]:
  setattr(Marked, _name, property(lambda self, name=_name: ("marked", name)))
for _name in ENCODING["hooks"]:
  setattr(Marked, _name, lambda self, *args, name=_name: (name, *args))


@pytest.mark.parametrize("name", sorted(ENCODING["declarations"]))
def test_a_wrapper_declares_what_it_wraps_declares(name):
  assert getattr(Wrapper(Marked()), name) == ("marked", name)
  assert getattr(Part(Marked(), 0), name) == ("marked", name)


@pytest.mark.parametrize("name", sorted(ENCODING["questions"]))
def test_a_wrapper_passes_questions_on(name):
  assert getattr(Wrapper(Marked()), name) == ("marked", name)


@pytest.mark.parametrize("name", sorted(ENCODING["hooks"] - {"prepare", "borrow"}))
def test_hooks_are_passed_on_with_the_names_of_the_one_inside(name):
  assert getattr(Wrapper(Marked()), name)({"a": 1}, 2) == (name, {"a": 1}, 2)
  part, params = Part(Marked(), 1), {"e0_a": 0, "e1_a": 1, "mix_a": 2}
  own = params if name == "assign_positions" else {"a": 1}
  assert getattr(part, name)(params, 2) == (name, own, 2)


def test_declarations_of_parts_are_combined():
  parts = tuple(map(positions.build, ("rope", "tupe", "path")))
  schedule = positions.build("by_layer((rope, tupe, path))")
  assert [part.relative for part in parts] == [True, False, True]
  assert [part.integer_positions for part in parts] == [False, True, False]
  assert [part.per_layer for part in parts] == [False, False, True]
  assert not schedule.relative and schedule.integer_positions and schedule.per_layer
  sums = attentions.build("gqa(2) + selective"), attentions.build("gqa(2) + window(3)")
  assert [x.rereads for x in sums] == [True, False]
  alternations = "alternate(selective, multihead)", "alternate(window(3), multihead)"
  assert [attentions.build(x).rereads for x in alternations] == [True, False]
