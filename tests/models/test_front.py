"""The front door: `import transformer_jax as tj`, and specs given in Python."""

import ast
import dataclasses
import doctest
import functools
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.models import architecture
from transformer_jax.models.feature_norms import RMSNorm

DIMS = tj.Dims(V=16, D=32, H=4, F=48, L=12)
PARTS = dict(
  position="rope(base=5e5)", core="dense", attention="gqa(2) + window(8)",
  norm="layernorm", activation="swiglu", norm_placement="post",
  embedding="tokens(power=0.0)", head="linear(bias=True)",
  feedforward_kind="dense", convolution="canon('AC')",
)  # fmt: skip


def run(code):
  """Returns the last line that a new Python prints."""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()[-1]


def test_importing_the_package_imports_nothing_else():
  code = (
    "import importlib, typing, sys; before = {*sys.modules}; import transformer_jax"
  )
  new = ast.literal_eval(run(code + "; print(sorted({*sys.modules} - before))"))
  assert new == ["transformer_jax"]


def test_each_name_is_there_and_is_what_the_stub_says():
  stub = pathlib.Path(tj.__file__).with_suffix(".pyi")
  names = {}
  for node in ast.parse(stub.read_text()).body:
    for alias in getattr(node, "names", ()):
      names[alias.asname] = (node.module, alias.name)
    if isinstance(node, ast.Assign):
      names[node.targets[0].id] = f"tj.{ast.unparse(node.value)}".rsplit(".", 1)
  assert {*names} == {*tj.__all__} and {*tj.__all__} < {*dir(tj)}
  for name, (module, attribute) in names.items():
    module = module.replace("tj.", "transformer_jax.")
    assert getattr(tj, name) is getattr(importlib.import_module(module), attribute)


def test_a_name_that_is_not_there_is_an_attribute_error():
  says = "has no attribute 'Transfomer'. Did you mean 'Transformer'?"
  with pytest.raises(AttributeError, match=re.escape(says)):
    tj.Transfomer  # noqa: B018


def test_registries_build_from_specs():
  assert tj.positions.build("t5").name == "t5"
  assert "t5" in tj.positions.positions and "gqa" in tj.attentions
  assert "copy" in tj.tasks and "dense" in tj.cores


def test_an_architecture_takes_the_strings_of_a_config():
  arch = tj.Architecture(DIMS, decoders=2, **PARTS)
  built = {name: architecture.REGISTRIES[name].build(s) for name, s in PARTS.items()}
  assert arch == tj.Architecture(DIMS, decoders=2, **built) and hash(arch)
  assert {*PARTS} == {*architecture.REGISTRIES}


def test_every_part_has_a_default_but_sizes_and_encoding():
  arch = tj.Architecture(DIMS, "none", decoders=1)
  assert tj.cores.name_of(arch.core) == "auto" and arch.norm == RMSNorm()


WRONG = {
  "a model without layers; write decoders=6, or encoders=6": {"decoders": 0},
  "dims is None; write every size, as in Architecture(Dims(V=": {"dims": None},
  "dims is {'D': 8}; write every size": {"dims": {"D": 8}},
  "position is missing; write for example position='rope'": {"position": None},
  "unknown positional encoding 'rop'. Did you mean": {"position": "rop"},
  "core is 3; write one of auto, ": {"core": 3},
  "norm is <class": {"norm": RMSNorm},
  "inherits transformer_jax.attention.variants.base.Variant": {"attention": PARTS},
  "decoders is '2'; write a number of layers": {"decoders": "2"},
  "encoders is -1; write a number of layers": {"encoders": -1},
  "decoders is True; write a number of layers": {"decoders": True},
  "classes is -2; write a number": {"classes": -2},
  "tied is 'yes'; write True or False": {"tied": "yes"},
  "prefix=True is of a decoder's text": dict(prefix=True, encoders=1, decoders=0),
  "has no argument 'placement': it is called norm_placement": {"placement": "pre"},
  "has no argument 'postion'. Did you mean 'position'?": {"postion": "rope"},
  "dropout is 2.0; write a number from 0 to below 1": {"dropout": 2.0},
  "dtype is 'float23'; write one of float32, bfloat16": {"dtype": "float23"},
  "attention=gqa: 3 groups of keys do not divide 4 heads": {"attention": "gqa(3)"},
}
SIZES = {
  "Dims without D, H, F, L; write every size": {"V": 1},
  "Dims without L; write every size": dict(V=16, D=32, H=4, F=48),
  "H is 0; write a whole number of at least 1": dict(V=16, D=32, H=0, F=48, L=12),
  "D is '32'; write a whole number": dict(V=16, D="32", H=4, F=48, L=12),
  "width 32 does not divide into 5 heads": dict(V=16, D=32, H=5, F=48, L=12),
  "V is -1; write a whole number of at least 1": dict(V=-1, D=32, H=4, F=48, L=12),
  "V is 16.0; write a whole number": dict(V=16.0, D=32, H=4, F=48, L=12),
  "H is True; write a whole number": dict(V=16, D=32, H=True, F=48, L=12),
  "F is -5; write a whole number of at least 0": dict(V=16, D=32, H=4, F=-5, L=12),
  "L is 0; write a whole number of at least 1": dict(V=16, D=32, H=4, F=48, L=0),
  "3 groups of keys (G) do not": dict(V=16, D=32, H=4, F=48, L=12, G=3),
  "has no argument 'N': an Architecture has the": dict(V=16, D=32, H=4, F=48, N=2),
  "has no argument 'width'. It takes V, D, ": dict(width=32),
}


@pytest.mark.parametrize("says", WRONG)
def test_what_is_missing_or_wrong_is_one_sentence(says):
  given = {"dims": DIMS, "position": "rope", "decoders": 1} | WRONG[says]
  with pytest.raises(ValueError) as error:
    tj.Architecture(**given)
  assert says in str(error.value) and "\n" not in str(error.value)


def test_sizes_or_an_encoding_that_are_left_out_are_named():
  with pytest.raises(ValueError, match="dims is None"):
    tj.Architecture(position="rope", decoders=2)
  with pytest.raises(ValueError, match="position is missing"):
    tj.Architecture(DIMS, decoders=2)


@pytest.mark.parametrize("says", SIZES)
def test_missing_and_impossible_sizes_are_named(says):
  with pytest.raises(ValueError) as error:
    tj.Dims(**SIZES[says])
  assert says in str(error.value) and "\n" not in str(error.value)


def test_sizes_may_be_numbers_of_numpy():
  sizes = dict(V=16, D=32, H=4, F=48, L=12)
  same = tj.Dims(**{letter: np.int64(size) for letter, size in sizes.items()})
  assert same == DIMS and type(same.D) is int and hash(same) == hash(DIMS)
  names = [*inspect.signature(tj.Dims).parameters]
  assert names == [field.name for field in dataclasses.fields(tj.Dims)]


def test_tokens_must_be_whole_numbers_in_two_axes():
  arch = tj.Architecture(DIMS, "none", encoders=1, decoders=1)
  token_BL = jnp.ones((1, 4), int)
  calls = [
    (token_BL[0], token_BL, r"token_BL has shape \(4,\); give ids \[B, L\]"),
    (token_BL * 1.0, token_BL, "token_BL is float32; give whole numbers"),
    ([[1, 2]], token_BL, r"token_BL is a list; give an array \[B, L\]"),
    (token_BL, token_BL[0], r"source_BL has shape \(4,\)"),
  ]
  for tokens, source, says in calls:
    with pytest.raises(ValueError, match=says):
      init = functools.partial(tj.Transformer(arch).init, source_BL=source)
      jax.eval_shape(lambda init=init, ids=tokens: init(jax.random.key(0), ids))


def test_a_cache_of_anything_but_an_architecture_says_what_to_give():
  with pytest.raises(ValueError, match="arch is 'x'; give an Architecture"):
    tj.empty_cache("x", 1, 2)


@pytest.mark.parametrize("length", [-1, 0, 4.5, "x"])
def test_a_problem_of_an_impossible_length_is_refused(length):
  with pytest.raises(tj.SpecError, match=f"length is {length!r}; write a whole"):
    tj.tasks.build("copy").problem(length)


def test_a_model_of_anything_but_an_architecture_says_what_to_write():
  for arch in ("rope", DIMS, None):
    with pytest.raises(ValueError, match=r"write Transformer\(Architecture\(dims, pos"):
      tj.Transformer(arch)


def test_a_call_must_fit_the_stacks_of_its_model():
  token_BL, memory = jnp.ones((1, 4), int), (jnp.ones((1, 4, 32)), None)
  calls = [
    (1, 1, {}, "encoder has nothing to read; write model.apply"),
    (0, 1, {"method": "decode", "memory": memory}, "memory is for a model of an enc"),
    (0, 1, {"method": "encode"}, "this model has no encoder"),
    (1, 0, {"method": "decode"}, "this model has no decoder"),
  ]
  for encoders, decoders, given, says in calls:
    arch = tj.Architecture(DIMS, "none", encoders=encoders, decoders=decoders)
    with pytest.raises(ValueError, match=says):
      tj.Transformer(arch).init(jax.random.key(0), token_BL, **given)


def test_the_example_of_architecture_runs():
  failed, tried = doctest.testmod(architecture)
  assert tried and not failed
