"""Specs become objects, and errors say what to write instead."""

import dataclasses

import pytest

from transformer_jax.axes import axes_of
from transformer_jax.positions import positions
from transformer_jax.positions.alibi import Alibi
from transformer_jax.positions.randomized import Randomized
from transformer_jax.positions.rope import Rope
from transformer_jax.spec import Registry, SpecError, nearest


def test_a_spec_is_a_name_with_literal_or_nested_arguments():
  assert positions.build("rope") == Rope()
  assert positions.build(" rope( base=5e5, interleaved=True ) ") == Rope(5e5, True)
  assert positions.build("rope(5e5)") == Rope(base=5e5)
  assert positions.build("randomized(rope(base=2.0), max_positions=9)") == Randomized(
    Rope(2.0), max_positions=9
  )
  assert positions.build("randomized(alibi)") == Randomized(Alibi())
  assert positions.build(Rope(3.0)) == Rope(3.0)


def test_module_and_class_name_an_object_outside_of_the_registry():
  where = "transformer_jax.positions.rope:Rope"
  assert positions.build(where) == Rope()
  assert positions.build(f"{where}(base=7.0)") == Rope(7.0)
  assert positions.build(f"randomized({where}(base=7.0))") == Randomized(Rope(7.0))


@pytest.mark.parametrize(
  "spec,says",
  [
    (
      "rop",
      "unknown positional encoding 'rop'. Did you mean 'rope'? Choose from abacus,",
    ),
    (
      "rope(bse=1)",
      "no argument 'bse'. Did you mean 'base'? It takes base, interleaved",
    ),
    ("rope(2, False, 1, 4)", "too many positional arguments"),
    ("rope(base=", "write name, name(argument=value) or module:Class"),
    ("rope(base=1+x)", "neither a literal nor a spec"),
    ("randomized(rop)", "Did you mean 'rope'"),
    ("t5(furthest=9)", "furthest is called max_distance."),
    ("learned(longest=9)", "longest is called max_positions."),
    ("no_such_module:Rope", "cannot import 'no_such_module'"),
    ("transformer_jax.positions.rope:Rop", "has no 'Rop'. Did you mean 'Rope'?"),
    ("", "write name"),
  ],
)
def test_errors_name_the_nearest_right_spelling(spec, says):
  with pytest.raises(SpecError) as error:
    positions.build(spec)
  assert says in str(error.value)


def test_a_name_is_registered_once():
  @dataclasses.dataclass(frozen=True)
  class One:
    text: str = ""

  registry = Registry("thing", One)
  registry.register("one")(One)

  assert registry.build("one(text='a:b (c)')") == One("a:b (c)")
  assert dict(registry) == {"one": One} and len(registry) == 1
  with pytest.raises(SpecError, match="registered twice"):
    registry.register("one")(One)


def test_names_tell_their_axes():
  assert axes_of("query_DHK") == "DHK" and axes_of("in_shift_F") == "F"
  assert axes_of("growth") == axes_of("in_shift") == ""


def test_nothing_near_offers_nothing():
  assert nearest("zzz", ["rope", "alibi"]) == ""
