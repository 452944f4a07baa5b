"""Whole models of other libraries give the recorded numbers with our attention.

The numbers lie in `third_party/`; `ORIGIN.md` there says how they were made. Weights
are large random numbers: a wrong window, cap or scale moves logits by 0.5 or more.
"""

import pathlib

import jax
import numpy as np
import pytest
from replay import under
from replay_models import MODELS

from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.training import sharding

DECODERS = [name for name in MODELS if not name.startswith("x_transformers")]
LOCAL = [name for name in MODELS if "talking" not in name]  # needs no whole rows
GPT_OSS = "transformers/whole_gpt_oss"
TILES = "blockwise(block=8)"  # three or four tiles each way
MESH = sharding.make_mesh(sequence=2)
FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
NEAR = 1e-5  # of the largest number; float32 noise of both sides is about 1e-6


# Others have all that these have, the first two also in a pass.
ALIKE = [
  f"transformers/whole_{name}"
  for name in ("llama", "falcon_gqa_new", "falcon_mqa", "bloom", "gpt_neo_local")
]


# A window and groups of keys are in gemma2 too; two of them are decoded or tiled below.
PASSES = [*ALIKE, "transformers/whole_mistral", "transformers/whole_deepseek_v2_mla"]
PASSES += [GPT_OSS]
CACHES = [f"transformers/whole_{name}" for name in ("gemma2", "mistral", "diffllama")]


def some(names, slow):
  """Marks some of them as slow."""
  mark = lambda name: pytest.mark.slow if name in slow else ()
  return [pytest.param(name, marks=mark(name)) for name in names]


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    there = dict(file)
  return under(there, "weights/"), there


def near(found, expected, what):
  error = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
  assert error < NEAR, f"{what} is off by {error:.1e} of its largest number"


def widen(there, L):
  """Adds padding on the right until there are L tokens."""
  fill = {"labels": -100}
  zeros = "input_ids", "attention_mask", "decoder_input_ids", "decoder_mask"
  fill |= dict.fromkeys(zeros, 0)
  longer = lambda x: ((0, 0), (0, L - x.shape[1]))
  pad = lambda n, x: np.pad(x, longer(x), constant_values=fill[n])
  return {n: pad(n, x) if n in fill else x for n, x in there.items()}


def real(there, what):
  """Returns 1 where there is a token; a decoder's text has a mask of its own."""
  decoder = "decoder_mask" in there and not what.startswith("enc")
  return there["decoder_mask" if decoder else "attention_mask"]


# Compiling a model with its gradients takes seconds: the definition is interpreted.
RUN = {True: evaluate, False: lambda f, *args: jax.device_get(jax.jit(f)(*args))}


def check_pass(name, core, L=0, gradients=True):
  """Compares a pass over texts with padding on the right, and its gradients."""
  weights, there = recorded(name)
  there = widen(there, L) if L else there
  loss, run = MODELS[name](core).loss, RUN[core == "dense"]
  if gradients:
    (value, seen), gradient = run(
      jax.value_and_grad(loss, has_aux=True), weights, there
    )
  else:
    value, seen = run(loss, weights, there)
  near(value, there["loss"], "loss")
  for what in there.keys() & seen.keys():
    expected = there[what]
    assert np.all(np.isfinite(seen[what])), f"padding makes {what} infinite"
    real_BL1 = real(there, what)[-len(expected) :, :, None]
    found = (seen[what][-len(expected) :] * real_BL1)[:, : expected.shape[1]]
    near(found, expected, what)
  if gradients:
    check_gradients(there, gradient)


def check_gradients(there, gradient):
  for what, expected in under(there, "grad/").items():
    near(gradient[what], expected, f"gradient of {what}")
  norms = under(there, "grad_norm/")
  assert norms.keys() == gradient.keys()
  for what, expected in norms.items():
    near(np.linalg.norm(gradient[what]), expected, f"gradient of {what}")


def check_decoding(name, core):
  """Compares greedy tokens after prompts with padding on the left."""
  weights, there = recorded(name)
  run = RUN[core == "dense"]
  token_BN, logits_BNV = run(MODELS[name](core).greedy, weights, there)
  near(logits_BNV, there["greedy_logits"], "logits")
  np.testing.assert_array_equal(token_BN, there["greedy_tokens"])


@pytest.mark.parametrize("name", some(MODELS, PASSES))
def test_a_pass_and_its_gradients(name):
  check_pass(name, "dense")


@pytest.mark.parametrize("name", some(DECODERS, ALIKE + CACHES))
def test_decoding(name):
  check_decoding(name, "dense")


@pytest.mark.parametrize("core", ["blockwise", "ring"])
def test_cores_refuse_just_what_needs_whole_rows(core):
  for name in MODELS:
    arch = MODELS[name](core).arch
    reason = arch.core.refusal(arch.position, arch.attention)
    assert (reason is None) == (name in LOCAL), name


def test_tiles():
  check_pass(GPT_OSS, TILES, gradients=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_tiles_of_all_models(name):
  check_pass(name, TILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LOCAL if name in DECODERS])
def test_decoding_with_tiles(name):
  check_decoding(name, TILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_auto_with_more_padding(name):
  """Texts as short as those recorded would fill no tile, and it would choose dense."""
  check_pass(name, "auto", L=40)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_a_ring(name):
  with jax.set_mesh(MESH):
    check_pass(name, "ring")
