"""The Transformer: decoding on the cache, architectures, scans, types and names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_positions import with_ids

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims, axes_of
from transformer_jax.evaluation.decode import greedy
from transformer_jax.models import (
  Architecture,
  Transformer,
  empty_cache,
  feature_norms,
  layers,
)
from transformer_jax.models.residual import placements
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, coords, positions

B, L = 2, 12
DIMS = Dims(V=16, D=32, H=4, F=48, L=L)
TOKEN_BL = jax.random.randint(jax.random.key(5), (B, L), 0, 16)
AT = with_ids(coords.consecutive(1, L))
# One encoding for each kind of hook; `slow` runs all of them.
SOME = ["learned", "rope", "t5", "shaw", "forgetting"]
REST = sorted({*positions} - {*SOME})
SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in REST]
# Wrapped or alone, a table of positions or vectors of distances is read alike.
NAMES = ["learned", "rope", "t5", "forgetting", "randomized(shaw, step=3)"]
MORE = ["shaw", "randomized(learned, step=2, max_positions=64)", *REST]


def make(position="rope", core="dense", **changes):
  changes = {"decoders": 2} | changes
  return Architecture(DIMS, positions.build(position), cores.build(core), **changes)


def looks_both_ways(name):
  try:
    return positions.build(name).bidirectional() is not None
  except ValueError:
    return False


@functools.cache
def started(arch):
  """Returns a model and random parameters, norms' gains among them.

  Drawn by NumPy in the shapes of `init`: compiling `init` would take seconds.
  """
  model = Transformer(arch)
  init = lambda key: model.init(key, TOKEN_BL, AT, TOKEN_BL, AT)
  shapes = jax.eval_shape(init, jax.random.key(0))["params"]
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.25 * random.normal(size=x.shape), x.dtype)
  return model, jax.tree.map(draw, shapes)


@functools.partial(interpreted, statics=1)
def logits(model, params, token_BL, at=None, source_BL=None, source_at=None):
  """Returns the logits of one pass: in NumPy, unless a program asks for them."""
  return model.apply({"params": params}, token_BL, at, source_BL, source_at)


@functools.partial(jax.jit, static_argnums=0)
def decode(model, params, token_BL, at, memory, cache):
  variables = {"params": params}
  return model.apply(variables, token_BL, at, memory, cache, method="decode")


@pytest.mark.parametrize(
  "name,core",
  [*((n, "dense") for n in NAMES if n != "t5"), ("fire", "blockwise(block=5)")]
  + [pytest.param(n, "dense", marks=pytest.mark.slow) for n in ["t5", *MORE]],
)
def test_decoding_token_by_token_equals_one_pass(name, core):
  model, params = started(make(name, core))
  real_BL = jnp.arange(L) >= jnp.array([[0], [3]])
  at = with_ids(coords.padded(real_BL))
  want = logits(model, params, TOKEN_BL, at)

  cache, got, before = empty_cache(model.arch, B, L + 4), [], decode._cache_size()
  for n in range(L):
    here = jax.tree.map(lambda x, n=n: x[:, n : n + 1], at)
    out, cache = decode(model, params, TOKEN_BL[:, n : n + 1], here, None, cache)
    got.append(out)
  assert decode._cache_size() == before + 1, "each token compiled anew"
  got = jnp.concatenate(got, axis=1)
  np.testing.assert_allclose(got[real_BL], want[real_BL], atol=2e-5)


@pytest.mark.parametrize(
  "name", [pytest.param("rope", marks=pytest.mark.slow), "forgetting"]
)
def test_greedy_decoding_of_padded_prompts_repeats_the_argmax_of_full_passes(name):
  model, params = started(make(name))
  real_BL = jnp.arange(4) >= jnp.array([[0], [2]])
  write = jax.jit(greedy, static_argnums=(0, 3))
  written = write(model, params, TOKEN_BL[:, :4], 5, coords.padded(real_BL))
  for row, start in enumerate((0, 2)):
    text_BL = jnp.concatenate([TOKEN_BL[:, :4], written], axis=1)[row : row + 1, start:]
    best_L = jnp.argmax(logits(model, params, text_BL)[0], axis=-1)
    np.testing.assert_array_equal(written[row], best_L[3 - start : -1])


@pytest.mark.parametrize(
  "placement,norm,activation",
  [
    ("pre", "rmsnorm", "swiglu"),
    pytest.param("post", "layernorm", "relu", marks=pytest.mark.slow),
  ],
)
def test_layers_scanned_and_recomputed_equal_layers_written_out(
  placement, norm, activation
):
  parts = {
    "norm_placement": placements.build(placement),
    "norm": feature_norms.norms.build(norm),
    "activation": layers.activations.build(activation),
  }
  model, params = started(make("shaw", **parts))
  scanned = Transformer(make("shaw", scan=True, remat=True, **parts))
  each = [params["decoder"][f"layer_{n}"] for n in range(2)]
  rest = {n: x for n, x in params["decoder"].items() if not n.startswith("layer")}
  stacked = rest | {"layers": jax.tree.map(lambda *x: jnp.stack(x), *each)}
  stacked = params | {"decoder": stacked}

  def loss(model, params):
    return jnp.sum(jnp.sin(logits(model, params, TOKEN_BL)))

  got = jax.jit(jax.grad(functools.partial(loss, scanned)))(stacked)
  want = jax.jit(jax.grad(functools.partial(loss, model)))(params)
  per_layer = jax.tree.map(lambda x: x[1], got["decoder"]["layers"])
  compare = functools.partial(np.testing.assert_allclose, atol=2e-3, rtol=2e-4)
  jax.tree.map(compare, per_layer, want["decoder"]["layer_1"])
  compare(got["embedding_VD"], want["embedding_VD"])


def test_a_scan_refuses_a_placement_that_varies_by_layer():
  arch = make(norm_placement=placements.build("pre(first_norm=False)"))
  _, params = started(arch)
  first, second = (params["decoder"][f"layer_{n}"] for n in range(2))
  assert second.keys() - first.keys() == {"attention_norm"}
  with pytest.raises(ValueError, match="placement gives layers different ones"):
    started(dataclasses.replace(arch, scan=True))


def test_an_encoder_sees_both_ways_and_a_decoder_only_back():
  for arch, both in ((make(), False), (make(encoders=2, decoders=0), True)):
    model, params = started(arch)
    changed = TOKEN_BL.at[:, -1].set((TOKEN_BL[:, -1] + 1) % 16)
    moved = logits(model, params, TOKEN_BL) - logits(model, params, changed)
    assert bool(jnp.any(moved[:, 0] != 0)) == both


@pytest.mark.parametrize("name", SOME + SLOWLY)
def test_encoder_decoder_reads_the_source_but_not_its_padding(name):
  arch = make(name, encoders=1, decoders=1)
  if not looks_both_ways(name):
    with pytest.raises(ValueError, match="use it in a decoder"):
      started(arch)
    return
  model, params = started(arch)
  real_BL = jnp.arange(L) < jnp.array([[12], [7]])
  source_BL, source_at = TOKEN_BL[::-1], with_ids(coords.padded(real_BL))
  run = lambda source_BL: logits(model, params, TOKEN_BL, AT, source_BL, source_at)
  want = run(source_BL)
  changed = jnp.where(real_BL, source_BL, 3)
  np.testing.assert_array_equal(run(changed)[1], want[1])
  assert np.any(run(source_BL.at[1, 2].add(1))[1] != want[1])


def test_cross_attention_decodes_on_the_cache():
  model, params = started(make("t5", encoders=1, decoders=2))
  want = logits(model, params, TOKEN_BL, source_BL=TOKEN_BL)
  encode = functools.partial(model.apply, method="encode")
  memory = evaluate(encode, {"params": params}, TOKEN_BL)
  more = functools.partial(decode, model, params)
  first, cache = more(
    TOKEN_BL[:, :7], coords.consecutive(B, 7), memory, empty_cache(model.arch, B, L)
  )
  rest, _ = more(TOKEN_BL[:, 7:], coords.consecutive(B, L - 7, 7), memory, cache)
  np.testing.assert_allclose(jnp.concatenate([first, rest], 1), want, atol=2e-5)


def test_every_target_token_sees_the_whole_source():
  model, params = started(make("t5", encoders=1, decoders=2))
  x_BMD = jax.random.normal(jax.random.key(0), (B, L, DIMS.D))
  read = interpreted(
    lambda x_BMD: decode(
      model, params, TOKEN_BL, AT, (x_BMD, AT.bidirectional()), None
    )[0]
  )
  moved = read(x_BMD.at[:, -1].add(1.0)) - read(x_BMD)
  assert np.all(np.any(moved != 0, axis=-1)), "the first token missed the last"


@pytest.mark.parametrize("name", SOME + SLOWLY)
def test_absolute_positions_enter_once_and_relative_ones_do_not_move_logits(name):
  model, params = started(make(name))
  near = logits(model, params, TOKEN_BL, AT)
  far = logits(model, params, TOKEN_BL, with_ids(coords.consecutive(1, L, 1000)))
  if model.arch.position.num_positions(DIMS):
    assert np.all(np.isnan(far)), "positions past a table's end must not look defined"
    return
  # Phases at 1000 are exact to 6e-5.
  assert (np.abs(far - near).max() < 1e-3) == model.arch.position.relative


def test_bfloat16_computes_in_half_and_keeps_parameters_and_logits_whole():
  model, params = started(make())
  half = Transformer(dataclasses.replace(model.arch, dtype="bfloat16"))
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  got, want = logits(half, params, TOKEN_BL), logits(model, params, TOKEN_BL)
  assert got.dtype == jnp.float32
  text = str(jax.make_jaxpr(lambda p: logits(half, p, TOKEN_BL))(params))
  assert "bf16" in text
  exponentials = [line for line in text.splitlines() if " exp " in line]
  assert exponentials and not any("bf16" in line for line in exponentials)
  # Eight bits of mantissa through two layers, against logits of size ten.
  assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_dropout_needs_a_key_and_uses_it():
  model, params = started(make(dropout=0.5))
  run = jax.jit(lambda **kwargs: model.apply({"params": params}, TOKEN_BL, **kwargs))
  np.testing.assert_array_equal(run(), run())
  one, two = (run(rngs={"dropout": jax.random.key(n)}) for n in (1, 2))
  assert np.any(one != two) and np.any(one != run())


def test_untied_outputs_have_their_own_weights():
  _, tied = started(make())
  _, untied = started(make(tied=False))
  assert set(untied) - set(tied) == {"output_DV"}


@pytest.mark.parametrize("name", [*SOME, "randomized(learned)", *SLOWLY])
def test_every_parameter_has_the_axes_of_its_name(name):
  arch = make(
    name, encoders=0, activation=layers.SwiGLU(), norm=feature_norms.LayerNorm()
  )
  sizes = {"V": 16, "D": 32, "H": 4, "K": 8, "F": 48}
  shapes = jax.eval_shape(Transformer(arch).init, jax.random.key(0), TOKEN_BL, AT)
  for path, x in jax.tree_util.tree_leaves_with_path(shapes):
    letters = axes_of(path[-1].key)
    assert len(letters) == x.ndim, path
    if "position" not in {part.key for part in path}:
      assert [sizes[letter] for letter in letters] == list(x.shape), path


def test_parameters_that_embed_belong_to_no_layer():
  @dataclasses.dataclass(frozen=True)
  class Both(PositionalEncoding):
    per_layer = True

    def init(self, key, dims):
      return {"shift": jnp.ones(())}

    def embed(self, params, x_BLD, at):
      return x_BLD + params["shift"]

  with pytest.raises(ValueError, match="Both.embed reads the parameter 'shift'"):
    started(dataclasses.replace(make(), position=Both()))


def test_sizes_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="width 30 does not divide into 4 heads"):
    Dims(V=16, D=30, H=4, F=8, L=4)
  for name in ("rope", "sinusoidal"):
    odd = dataclasses.replace(make(name), dims=Dims(V=9, D=9, H=3, F=8, L=4))
    with pytest.raises(ValueError, match="need.* an even"):
      started(odd)
