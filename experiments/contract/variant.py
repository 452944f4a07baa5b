"""Contract of an attention variant: every core, the cache, packed texts.

Every registered variant is tested for it (tests/attention/test_attentions.py), a user's
by `python -m experiments.check my_file:MyClass`. A formula can still be wrong.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.contract.attention_layers import (
  NOTHING,
  SOURCE,
  M,
  attend,
  close,
  compare_cores,
  inputs,
  inputs_at,
  jit,
  make,
  outputs,
  placed,
  program,
  token_ids,
)
from experiments.contract.harness import (
  CUT,
  DIMS,
  EITHER_WAY,
  HOLES,
  MODES,
  SEGMENTS,
  B,
  L,
  fit,
  refused,
  with_ids,
)
from transformer_jax.axes import axes_of
from transformer_jax.models import empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.positions import coords
from transformer_jax.training import sharding


def both_ways(variant):
  """Returns a bidirectional layer, or None where the variant refuses that."""
  try:
    changed = form(variant, "encoder")
  except ValueError as error:
    assert variant.name in str(error) and "use it in a decoder" in str(error)
    with refused("prefix attention: "):
      form(variant, "prefix")
    return None
  assert changed.bidirectional() == changed
  encoding = make(variant).position.bidirectional()
  return make(changed, encoding)


def looks_both_ways_or_is_refused(variant, compared=True):
  dense = both_ways(variant)
  if dense is None:
    return
  if compared:
    compare_cores(dense, "blockwise", EITHER_WAY)
  for mode, at in EITHER_WAY.items():
    assert np.all(np.isfinite(outputs(dense, at))), mode
  packed = outputs(dense, EITHER_WAY["packed, bidirectional"])
  params, x = inputs(dense)
  here = coords.padded(jnp.arange(L) < jnp.full((B, 1), L - CUT)).bidirectional()
  alone = outputs(dense, with_ids(here), (params, jnp.roll(x, -CUT, axis=1)))
  close(packed[0, CUT:], alone[0, : L - CUT])


def test_packed_and_padded_rows_equal_the_texts_alone(variant):
  layer = make(variant)
  params, x = inputs(layer)
  packed, padded = (outputs(layer, MODES[m]) for m in ("packed", "left_padded"))
  for got, start in ((packed, CUT), (padded, 9)):
    here = with_ids(coords.padded(jnp.arange(L) < jnp.full((B, 1), L - start)))
    alone = outputs(layer, here, (params, jnp.roll(x, -start, axis=1)))
    close(got[0, start:], alone[0, : L - start])
  # A text goes on after padding.
  real, n = np.flatnonzero(HOLES), HOLES.sum()

  def at(mask):
    return with_ids(coords.padded(jnp.broadcast_to(mask, (B, L))))

  alone = outputs(layer, at(jnp.arange(L) < n), (params, x.at[:, :n].set(x[:, real])))
  close(outputs(layer, at(HOLES))[:, real], alone[:, :n])


def test_texts_in_one_row_and_padding_are_worlds_apart(variant):
  """Gradients of a text's outputs are zero for other texts and padding."""
  layer = make(variant)
  second = (SEGMENTS == 2)[..., None] * jnp.ones(DIMS.D)
  packed, padded = (placed(layer, MODES[m]) for m in ("packed", "left_padded"))
  grad = program(layer)(*inputs(layer), packed, second)[1][1]
  assert not np.any(grad[SEGMENTS != 2]) and np.any(grad[SEGMENTS == 2])
  real = padded.real_BL
  grad = program(layer)(*inputs(layer), padded, real[..., None] * jnp.ones(DIMS.D))[1][
    1
  ]
  assert not np.any(grad[~real])


def test_the_future_has_zero_gradient_and_changes_nothing(variant):
  layer = make(variant)
  at, g = placed(layer, MODES["causal"]), jnp.zeros((B, L, DIMS.D)).at[:, 11].set(1.0)
  grad = program(layer)(*inputs(layer), at, g)[1][1]
  assert not np.any(grad[:, 12:]), "output 11 depends on a later token"
  assert np.any(grad[:, :11]), "output 11 depends on nothing"
  whole, first = (outputs(layer, MODES[m]) for m in ("causal", "first_half"))
  close(first[:, :12], whole[:, :12])


@functools.lru_cache(maxsize=32)
def decoder(layer):
  """Returns jitted `(params, x, at, cache) -> outputs`, one token at a time.

  Parameters and tokens have an axis of seeds in front.
  """

  def one_seed(params, x, at, empty):
    def step(cache, token):
      x, at = token
      out_BLD, cache = attend(layer, params, x, at, cache)
      return cache, out_BLD

    tokens = jax.tree.map(lambda y: jnp.moveaxis(y[:, :, None], 1, 0), (x, at))
    _, out_LB1D = jax.lax.scan(step, empty, tokens)
    return jnp.moveaxis(out_LB1D[:, :, 0], 0, 1)

  return jit(jax.vmap(one_seed, (0, 0, None, None)))


def test_decoding_on_the_cache_equals_one_pass_for_every_seed(variant):
  """Token by token, with padding on the left, and room left in the cache."""
  layer = make(variant)
  at, empty = placed(layer, MODES["left_padded"]), empty_cache(layer.arch, B, L + 3)
  if variant.rereads:  # a layer then has no cache: models read the text again
    with refused("no cache keeps"):
      params, x = inputs(layer)
      attend(layer, params, x, at, empty)
    return
  (empty,) = empty
  each = [inputs(layer, seed) for seed in range(2)]
  got = decoder(layer)(*jax.tree.map(lambda *x: np.stack(x), *each), at, empty)
  for n, given in enumerate(each):
    want = outputs(layer, at, given)
    close(got[n][at.real_BL], want[at.real_BL], atol=1e-5)


@functools.lru_cache(maxsize=32)
def crossed(layer):
  """Returns jitted `(params, x, at, source, source_at) -> cross-attention of x`."""
  read = functools.partial(attend, layer)
  return jit(lambda params, x, at, *memory: read(params, x, at, memory=memory)[0])


def test_attention_to_another_text_is_defined_or_refused(variant):
  try:
    changed = form(variant, "cross")
  except ValueError as error:
    assert variant.name in str(error) and "use it in a decoder" in str(error)
    return
  layer, at = make(changed, NOTHING), MODES["causal"]
  (params, x), (_, source) = inputs(layer), inputs(layer, seed=1)
  source, real = source[:, :M], SOURCE.real_BL

  def read(x, source, where=SOURCE):
    return crossed(layer)(params, x, at, source, where)

  out = read(x, source)
  changed = jnp.where(real[..., None], source, 9.0)
  np.testing.assert_array_equal(read(x, changed), out)
  # Nothing but the order of queries and keys is left, and neither of them counts.
  roll = functools.partial(jnp.roll, shift=3, axis=1)
  close(read(x[:, ::-1], roll(source), jax.tree.map(roll, SOURCE)), out[:, ::-1])
  # Weights may be zero, but not those of all queries.
  moved = read(x, source.at[:, 5].add(1.0)) - out
  assert np.all(np.any(moved != 0, axis=(1, 2)))


def test_bfloat16_stays_within_its_epsilon(variant):
  layer, at = make(variant), MODES["causal"]
  params, x = inputs(layer)
  half = x.astype(jnp.bfloat16)
  got = jit(lambda *given: attend(layer, *given)[0])(params, half, placed(layer, at))
  assert got.dtype == jnp.bfloat16
  want = outputs(layer, at, (params, half.astype(jnp.float32)))
  # Eight bits of mantissa, in four projections, on weights and on values.
  close(got.astype(jnp.float32), want, atol=0.02 * float(np.abs(want).max()) + 0.03)


def test_every_parameter_learns_and_a_second_call_compiles_nothing(variant):
  """Gradient descent on parameters and tokens fits a target."""
  layer = make(variant)
  given, at = jax.device_get(inputs(layer)), placed(layer, MODES["packed"])
  run = program(layer)
  target = 0.3 * np.cos(np.arange(B * L * DIMS.D, dtype=np.float32))
  target = target.reshape(B, L, DIMS.D)
  out = jax.device_get(run(*given, at, target)[0])
  compiled = run._cache_size()
  grads, _ = run(*given, at, out - target)[1]
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    # A shift of all keys is no change after a softmax.
    name = path[-1].key
    cancels = name.startswith("key_shift") or name in layer.variant.untrained
    assert np.any(np.abs(grad) > 1e-7) or cancels, path
  losses = fit(lambda given, g: run(*given, at, g), given, target, steps=20)
  assert losses[-1] < 0.8 * losses[0], losses
  assert run._cache_size() == compiled


def test_parameters_have_the_axes_of_their_names_and_a_mesh_can_split_them(variant):
  layer = make(variant)
  sizes = {"D": DIMS.D, "H": DIMS.H, "K": DIMS.K}
  x, at = inputs_at(layer)
  init = functools.partial(layer.init, carry=token_ids(at))
  shapes = jax.eval_shape(init, jax.random.key(0), x, at)["params"]
  expected = jax.tree.structure(inputs(layer)[0])
  assert str(jax.tree.structure(shapes)) == str(expected)
  shapes.pop("position", None)
  for name, x in shapes.items():
    letters = axes_of(name)
    assert len(letters) == x.ndim, name
    for letter, size in zip(letters, x.shape, strict=True):
      assert sizes.get(letter, size) == size, name
  for name, sharded in sharding.split(sharding.make_mesh(2, 2), shapes).items():
    assert ("tensor" in sharded.spec) == ("H" in axes_of(name)), name
