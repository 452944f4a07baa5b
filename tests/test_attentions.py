"""The contract that an attention variant inherits by being registered.

Every registered variant, and some sums of them, runs here as a model's layer does, with
its projections, its cache and its output. A formula can still be wrong: see
test_weights.py. All cells of variant x encoding x core are in
test_matrix_attention.py.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_positions import CUT, DIMS, EITHER_WAY, MODES, SEGMENTS, B, L, with_ids

from transformer_jax.attention import Variant, attentions, cores
from transformer_jax.attention.variant import Sum
from transformer_jax.axes import axes_of
from transformer_jax.models import Architecture, empty_cache
from transformer_jax.models.support import form
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class Both(Rope):
  """Turns queries and keys and adds a learned bias: most of what an encoding can do."""

  def init(self, key, dims):
    return {"table_HN": jax.random.normal(key, (dims.H, 8))}

  def bias(self, params, pos_L, pos_M):
    apart_LM = jnp.abs(pos_L[:, None] - pos_M[None, :])
    return params["table_HN"][jnp.minimum(apart_LM, 7)]


# Arguments that show something in 24 tokens and 4 heads, where the default does not.
ARGUMENTS = {
  "alternate": ["alternate(window(6), multihead)"],
  "gqa": ["gqa(2)", "gqa(1, bias=True)"],
  "window": ["window(6)"],
  "softcap": ["softcap(2)"],
  "scale": ["scale(1)", "scale(0, learned=True)"],
  "entmax": ["entmax", "entmax(1.3, learned=True)"],
  "stick_breaking": ["stick_breaking", "stick_breaking(True, remainder=True)"],
  "sigmoid": ["sigmoid", "sigmoid(fixed=24)"],
}
SUMS = ["gqa(2) + window(6) + softcap(5)", "mqa + sinks + window(6)"]
SPECS = [spec for name in attentions for spec in ARGUMENTS.get(name, [name])] + SUMS
# A block of 7 does not divide 24: tiles are padded, split by the diagonal, skipped.
CORES = {"blockwise": "blockwise(block=7)", "cudnn": "cudnn(implementation='xla')"}
MESHES = {"ring": lambda: jax.set_mesh(sharding.make_mesh(sequence=4))}
TILED = sorted({*cores} - {"auto", "dense"})
ENCODINGS = [Both(), positions.build("none")]
NOTHING = positions.build("none")
M = 17  # tokens of the text that a decoder attends to
SOURCE = coords.padded(jnp.arange(M) < jnp.array([[17], [12]])).bidirectional()
# Compiling is what these tests cost, and slow machine code is found sooner.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def seen_by_tiles(spec):
  """Returns what a core knows of a variant: hooks, parameters, widths of heads."""
  variant = attentions.build(spec)
  hooks = "scale dot features logits seen extra pointwise weigh".split()
  used = tuple(hook for hook in hooks if variant.overrides(hook))
  learned = jax.eval_shape(lambda: variant.init(jax.random.key(0), DIMS))
  return used, tuple(learned), variant.projections()


# The first that a core cannot tell from others stands for them in the quick tests.
FIRST = {seen_by_tiles(spec): spec for spec in reversed(SPECS)}.values()
STANDING = [attentions.build(spec) for spec in FIRST]
SLOW = pytest.mark.slow
CELLS = [
  pytest.param(spec, core, marks=() if spec in FIRST and quick else SLOW)
  for spec in SPECS
  for core in TILED
  for quick in [core in ("blockwise", "linear")]
]


@pytest.fixture(scope="module", params=SPECS)
def variant(request):
  return attentions.build(request.param)


def make(variant, encoding=None, core="dense"):
  """Returns a layer; without an encoding, with the first that the variant serves."""
  core = cores.build(core)
  served = (e for e in ENCODINGS if cores.build("dense").refusal(e, variant) is None)
  encoding = next(served) if encoding is None else encoding
  return layer(Architecture(DIMS, encoding, core, variant, decoders=1))


def layer(arch):
  return Attention(arch, *arch.layer("decoder", 0))


def other(layer, **changes):
  """Returns the layer of a model that differs so."""
  return make(**{"variant": layer.variant, "encoding": layer.position} | changes)


class Nothing:
  """Stands for a core where only parameters are wanted."""

  def __call__(self, q_BLHK, k_BMGK, v_BMGE, *rest):
    return jnp.zeros((*q_BLHK.shape[:3], v_BMGE.shape[-1]), v_BMGE.dtype)


@functools.lru_cache(maxsize=32)
def inputs(layer, seed=0):
  """Returns parameters, off their neutral start, and tokens."""
  random = np.random.default_rng(seed)
  near = lambda x: x + 0.2 * random.normal(size=x.shape).astype(np.float32)
  start = other(layer, core=Nothing()).init(jax.random.key(seed), *inputs_at(layer))
  params = jax.tree.map(near, start["params"])
  return params, jnp.asarray(random.normal(size=(B, L, DIMS.D)), jnp.float32)


def attend(layer, params, x, at, cache=None, memory=None):
  """Attends as a model does, and returns the update of the tokens and the cache."""
  own = params.get("position", {})
  x = bind(layer.position, own, DIMS).embed(x, at)
  return layer.apply({"params": params}, x, at, cache=cache, memory=memory)


@functools.lru_cache(maxsize=32)
def program(layer):
  """Returns jitted `(params, x, at, g) -> (output, gradients of sum(output * g))`."""

  def loss(params, x, at, g):
    out_BLD, _ = attend(layer, params, x, at)
    return jnp.sum(out_BLD * g), out_BLD

  gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)

  def run(params, x, at, g):
    (_, out_BLD), grads = gradient(params, x, at, g)
    return out_BLD, grads

  return jit(run)


def placed(layer, at):
  """Returns coordinates with the positions that the encoding chooses."""
  return layer.position.place(None, at)


def outputs(layer, at, given=None):
  """Returns what the layer makes of its tokens."""
  given = inputs(layer) if given is None else given
  return program(layer)(*given, placed(layer, at), jnp.ones((B, L, DIMS.D)))[0]


def close(got, want, mode="", atol=5e-6, rtol=1e-6):
  np.testing.assert_allclose(got, want, atol=atol, rtol=rtol, err_msg=mode)


def compare_cores(dense, name, kinds):
  """Compares a core with the definition, values and gradients, or sees it refused."""
  tested = other(dense, core=CORES.get(name, name))
  reason = tested.arch.core.refusal(dense.position, dense.variant)
  if reason:
    return see_refused(tested, name, reason)
  g = jax.random.normal(jax.random.key(9), (B, L, DIMS.D))
  for mode, at in kinds.items():
    at = placed(dense, at)
    if at.pos_BL.max() >= (dense.position.reach(DIMS) or jnp.inf):
      continue
    want, want_grads = program(dense)(*inputs(dense), at, g)
    with MESHES.get(name, contextlib.nullcontext)():
      got, got_grads = program(tested)(*inputs(dense), at, g)
    # Sums of float32 in another order; gradients add up to B * L * D terms.
    same(f"{name}, {mode}", 5e-6, 1e-6, got, want)
    same(f"{name}, {mode}", 5e-5, 3e-5, got_grads, want_grads)


def same(mode, atol, rtol, got, want):
  """Compares trees of sums: one near zero is rounded as the largest of its terms is.

  In float64 the gradient of a learned scale, -9.5, is 8e-5 from the definition's and
  3e-4 from the ring's, where other gradients reach 133.
  """
  atol += 2e-6 * max(float(jnp.abs(x).max()) for x in jax.tree.leaves(want))
  jax.tree.map(functools.partial(close, mode=mode, atol=atol, rtol=rtol), got, want)


def see_refused(layer, core, reason):
  """Checks that a refusal names both options, says what to do, and is raised."""
  assert layer.variant.name in reason or layer.position.name in reason, reason
  assert core in reason and ("use " in reason or "set " in reason), reason
  with pytest.raises(ValueError) as error:
    jax.eval_shape(layer.init, jax.random.key(0), *inputs_at(layer))
  assert reason in str(error.value)


def inputs_at(layer):
  """Returns tokens and coordinates to start a layer with."""
  return jnp.zeros((B, L, DIMS.D)), placed(layer, MODES["causal"])


@pytest.mark.parametrize("variant,core", CELLS, indirect=["variant"])
def test_every_core_gives_the_dense_answer_and_gradients(variant, core):
  compare_cores(make(variant), core, MODES)


def both_ways(variant):
  """Returns a layer that looks both ways, or None where that is refused."""
  try:
    changed = form(variant, "encoder")
  except ValueError as error:
    assert variant.name in str(error) and "use it in a decoder" in str(error)
    with pytest.raises(ValueError, match="prefix attention: "):
      form(variant, "prefix")
    return None
  assert changed.bidirectional() == changed
  encoding = make(variant).position.bidirectional()
  return make(changed, encoding)


def test_attention_that_looks_both_ways_is_defined_or_refused(variant):
  dense = both_ways(variant)
  if dense is None:
    return
  if variant in STANDING:
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


def test_texts_in_one_row_and_padding_are_worlds_apart(variant):
  """What a token is told to change reaches no other text and no empty place."""
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
      out_BLD, cache = attend(layer, params, *token, cache)
      return cache, out_BLD

    one_by_one = lambda y: jnp.moveaxis(y[:, :, None], 1, 0)
    _, out_LB1D = jax.lax.scan(step, empty, jax.tree.map(one_by_one, (x, at)))
    return jnp.moveaxis(out_LB1D[:, :, 0], 0, 1)

  return jit(jax.vmap(one_seed, (0, 0, None, None)))


def test_decoding_on_the_cache_equals_one_pass_for_every_seed(variant):
  """Token by token, with padding on the left, and room left in the cache."""
  layer = make(variant)
  at, (empty,) = placed(layer, MODES["left_padded"]), empty_cache(layer.arch, B, L + 3)
  each = [inputs(layer, seed) for seed in range(2)]
  got = decoder(layer)(*jax.tree.map(lambda *x: jnp.stack(x), *each), at, empty)
  for n, given in enumerate(each):
    want = outputs(layer, at, given)
    close(got[n][at.real_BL], want[at.real_BL], atol=1e-5)


@functools.lru_cache(maxsize=32)
def crossed(layer):
  """Returns jitted `(params, x, at, source, source_at) -> what x reads there`."""
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
  read = lambda x, source, where=SOURCE: crossed(layer)(params, x, at, source, where)
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
  given, at, run = inputs(layer), placed(layer, MODES["packed"]), program(layer)
  target = 0.3 * jnp.cos(jnp.arange(B * L * DIMS.D)).reshape(B, L, DIMS.D)
  out, _ = run(*given, at, target)
  compiled, losses = run._cache_size(), []
  (grads, _) = run(*given, at, out - target)[1]
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    # A shift of all keys is no change after a softmax.
    cancels = path[-1].key.startswith("key_shift")
    assert np.any(np.abs(grad) > 1e-7) or cancels, path
  for _ in range(20):
    grads = run(*given, at, out - target)[1]
    rate = 1.0 / (10 + optax.tree.norm(grads))
    given = jax.tree.map(lambda x, d, rate=rate: x - rate * d, given, grads)
    out, _ = run(*given, at, target)
    losses.append(float(jnp.sum((out - target) ** 2)))
  assert losses[-1] < 0.8 * losses[0], losses
  assert run._cache_size() == compiled


def test_parameters_have_the_axes_of_their_names_and_a_mesh_can_split_them(variant):
  layer = make(variant)
  sizes = {"D": DIMS.D, "H": DIMS.H, "K": DIMS.K}
  shapes = jax.eval_shape(layer.init, jax.random.key(0), *inputs_at(layer))["params"]
  assert jax.tree.structure(shapes) == jax.tree.structure(inputs(layer)[0])
  shapes.pop("position", None)
  for name, x in shapes.items():
    letters = axes_of(name)
    assert len(letters) == x.ndim, name
    for letter, size in zip(letters, x.shape, strict=True):
      assert sizes.get(letter, size) == size, name
  for name, found in sharding.split(sharding.make_mesh(2, 2), shapes).items():
    assert ("tensor" in found.spec) == ("H" in axes_of(name)), name


def parts(variant):
  return variant.parts if isinstance(variant, Sum) else (variant,)


def test_a_variant_is_a_value_with_a_name_and_refuses_what_it_does_not_know(variant):
  assert hash(variant) == hash(dataclasses.replace(variant))
  for part in parts(variant):
    assert attentions[part.name] is type(part)
    fields = {field.name for field in dataclasses.fields(part)}
    assert not fields & {*dir(Variant)}, "a field must not hide a hook"
    with pytest.raises(SpecError, match=f"{part.name}.* no argument 'nonsense'"):
      attentions.build(f"{part.name}(nonsense=1)")
  for n in range(3):
    assert isinstance(variant.layer(n), Variant)
