"""An argument of a wrong type is named, in every registry."""

import inspect

import pytest
from registries import CONFIGURED

from transformer_jax.attention import attentions
from transformer_jax.spec import Registry, SpecError

# Of each type a value that it is not, and what the message offers instead.
WRONG = {
  bool: ("'a'", "True or False"),
  int: ("'a'", "a whole number"),
  float: ("'a'", "a number"),
  str: ("7", "a text in quotes"),
}
CASES = [
  pytest.param(registry, name, field, id=f"{name}.{field.name}")
  for registry in CONFIGURED
  for name in registry
  for field in inspect.signature(registry[name]).parameters.values()
  if field.annotation in WRONG and field.default is not inspect.Parameter.empty
]


@pytest.mark.parametrize(("registry", "name", "field"), CASES)
def test_every_argument_of_a_wrong_type_is_named(registry, name, field):
  value, _ = WRONG[field.annotation]
  needs = [n for n, x in inspect.signature(registry[name]).parameters.items()
           if x.default is inspect.Parameter.empty]  # fmt: skip
  given = [f"{n}='copy'" if n == "source" else f"{n}=copy" for n in needs]
  spec = f"{name}({', '.join([*given, f'{field.name}={value}'])})"
  with pytest.raises(ValueError) as caught:
    registry.build(spec)
  assert field.name in str(caught.value) and value in str(caught.value)


def test_there_are_cases_of_every_type():
  kinds = [case.values[2].annotation for case in CASES]
  assert len(kinds) > 250 and {*kinds} == {*WRONG}


class Thing:
  def __init__(
    self, many: int = 1, share: float = 0.5, name: str = "", sure: bool = True,
    maybe: int | None = None, few: tuple[float, ...] = (), two: tuple[int, str] = (),
    part: dict = None, any_: "Nowhere" = 0,  # noqa: F821
  ):  # fmt: skip
    self.kept = many, share, name, sure, maybe, few


class Known(Thing):
  def __init__(
    self, many: int = 1, share: float = 0.5, name: str = "", sure: bool = True,
    maybe: int | None = None, few: tuple[float, ...] = (), two: tuple[int, str] = (),
    part: dict | None = None,
  ):  # fmt: skip
    super().__init__(many, share, name, sure, maybe, few)


things = Registry("thing", Thing)
things.register("thing")(Thing)
things.register("known")(Known)


@pytest.mark.parametrize(
  ("given", "says"),
  [
    ("many=1.5", "many is 1.5; write a whole number"),
    ("many=True", "many is True; write a whole number"),
    ("share='a'", "share is 'a'; write a number"),
    ("name=3", "name is 3; write a text in quotes"),
    ("sure=1", "sure is 1; write True or False"),
    ("maybe='a'", "maybe is 'a'; write a whole number or None"),
    ("few=1.0", "few is 1.0; write a tuple, each of it a number"),
    ("few=(1, 'a')", "few is (1, 'a'); write a tuple, each of it a number"),
    ("two=(1,)", "two is (1,); write a tuple of a whole number, a text in quotes"),
    ("part=3", "part is 3; write a dict, by its name or None"),
  ],
)
def test_the_message_says_what_to_write(given, says):
  with pytest.raises(SpecError) as caught:
    things.build(f"known({given})")
  assert str(caught.value) == f"thing 'known({given})': {says}"


def test_what_is_of_its_type_passes():
  given = "many=2, share=1, name='a', sure=False, maybe=3, few=(1, 0.5)"
  assert things.build(f"known({given})").kept == (2, 1, "a", False, 3, (1, 0.5))
  assert things.build("known(maybe=None)").kept[4] is None


def test_a_class_whose_types_cannot_be_read_takes_anything():
  assert things.build("thing(many='a')").kept[0] == "a"


def test_the_words_of_a_class_come_first():
  with pytest.raises(SpecError, match="width is 0.5; write a whole number, 1 or more"):
    attentions.build("window(0.5)")
