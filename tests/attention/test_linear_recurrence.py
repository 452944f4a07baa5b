"""The gated linear recurrence: recorded numbers, and chunks against the definition."""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention.linear_recurrence import (
  StateUpdates,
  chunked,
  elementwise,
  elementwise_sequential,
  sequential,
)

THIRD_PARTY = pathlib.Path(__file__).parents[2] / "third_party"
FOLDER = THIRD_PARTY / "flash_linear_attention"
FORMS = [sequential, functools.partial(chunked, chunk=16)]


@functools.cache
def recorded(name, folder=FOLDER):
  with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
    return {key: jnp.asarray(x) for key, x in file.items()}


def scaled(x):
  return x * x.shape[-1] ** -0.5


def unit(x):
  return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-6)


def of_feature(x):
  return x if x.ndim == 4 else x[..., None]


def delta(i, key="k", norm=lambda x: x, strength=1.0, query=scaled):
  k, beta = norm(i[key]), strength * i["beta"][..., None]
  decay = of_feature(i["g"]) if "g" in i else jnp.zeros_like(beta)
  return StateUpdates(query(norm(i["q"])), k, beta * i["v"], decay, beta * k)


def gated_linear(i, decay):
  return StateUpdates(scaled(i["q"]), i["k"], i["v"], of_feature(decay))


def retention(i):
  gamma_H = 1 - 2.0 ** (-5 - jnp.arange(i["k"].shape[2]))
  return gated_linear(i, jnp.log(gamma_H) * jnp.ones((*i["k"].shape[:2], 1)))


def several(per_token, first, **last):
  """Returns tokens of several writes each: a decay before the first, then a query."""
  (B, L, H, K), n = per_token.key_BLHK.shape, first.shape[1]
  none = jnp.zeros((B, n, L // n, H, K))
  decay = none[..., : first.shape[-1]].at[:, :, 0].set(first)
  query = none.at[:, :, -1].set(last["query"])
  join = lambda x: x.reshape(B, L, *x.shape[3:])
  return StateUpdates(
    join(query), per_token.key_BLHK, per_token.value_BLHE, join(decay),
    per_token.read_BLHK,
  )  # fmt: skip


def product(i, gated=True):
  beta = i["beta"][..., None]
  none = jnp.zeros_like(i["k"])
  writes = StateUpdates(none, i["k"], beta * i["v"], none, beta * i["k"])
  return several(writes, gated * i["g"][..., None], query=i["q"])


def grouped(i):
  """Raw gates; each head of keys serves heads of values that follow each other."""
  serves = i["v"].shape[2] // i["k"].shape[2]
  q, k = (unit(jnp.repeat(i[name], serves, axis=2)) for name in "qk")
  g, beta = -jax.nn.softplus(i["g"]), jax.nn.sigmoid(i["beta"])
  return delta({"q": q, "k": k, "v": i["v"], "g": g, "beta": beta})


def low_rank(i, alpha, b, query):
  """A read of the state before its decay is one of the state after it, undone."""
  read = -alpha * jnp.exp(-i["gk"])
  return StateUpdates(query, i["k"], i["v"], i["gk"], read, erase_BLHK=b)


CASES = {
  "gated_delta_rule/default_scale": delta,
  "gated_delta_rule/qk_l2norm": functools.partial(delta, key="k_raw", norm=unit),
  "gated_delta_rule/beta_times_2": functools.partial(delta, strength=2.0),
  "kda/scale": functools.partial(delta, query=lambda x: x),
  "gla_retention/gla": lambda i: gated_linear(i, i["gk"]),
  "gla_retention/simple_gla": lambda i: gated_linear(i, i["g"]),
  "gla_retention/retention": retention,
  "delta_rule/per_head_beta": delta,
  "gated_delta_product/gated": product,
  "gdn2/": lambda i: StateUpdates(
    scaled(i["q"]), i["k"], i["w"] * i["v"], i["g"], i["b"] * i["k"]
  ),
  "dplr_rwkv7/dplr": lambda i: low_rank(i, i["alpha"], i["b"], scaled(i["q"])),
  "dplr_rwkv7/rwkv7": lambda i: low_rank(i, -i["kk"], i["kk"] * i["a"], i["q"]),
}
SCANNED = CASES | {  # the others of a recording, in one form
  "gated_delta_rule/zero_state_scale": functools.partial(delta, query=lambda x: x),
  "kda/default_scale": delta,
  "kda/qk_l2norm": functools.partial(delta, key="k_raw", norm=unit),
  "gated_delta_product/ungated": functools.partial(product, gated=False),
  "hf_gated_delta_rule/recurrent": grouped,
}


@pytest.mark.parametrize(
  ("case", "form"),
  [*itertools.product(SCANNED, FORMS[:1]), *itertools.product(CASES, FORMS[1:])],
)
def test_outputs_states_and_gradients_are_those_recorded(case, form):
  name, _, variant = case.partition("/")
  folder = THIRD_PARTY / "transformers" if name.startswith("hf_") else FOLDER
  there, make = recorded(name, folder), SCANNED[case]
  given = {k[7:]: x for k, x in there.items() if k.startswith("inputs/")}
  prefix = f"outputs/{variant}/" if variant else "outputs/"
  want = {k.removeprefix(prefix): x for k, x in there.items() if k.startswith(prefix)}
  every = given["v"].shape[1] // given["grad_out"].shape[1]
  stateful = "final_state" in want

  def run(changed):
    tokens = make(given | changed)
    start = (given | changed)["h0"] if "dh0" in want else None
    out, state = form(tokens, start)
    return out[:, every - 1 :: every], state

  def total(changed):
    out, state = run(changed)
    sum_ = jnp.vdot(out, given["grad_out"])
    return sum_ + (jnp.vdot(state, given["grad_state"]) if stateful else 0)

  inputs = {n[1:]: given[n[1:]] for n in want if n[0] == "d"}
  slopes, (out, state) = jax.jit(lambda x: (jax.grad(total)(x), run(x)))(inputs)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
  close(out, want["o"])
  if stateful:
    close(state, want["final_state"])
  assert slopes
  for n, slope in slopes.items():
    close(slope, want[f"d{n}"], err_msg=n)


def test_a_strength_of_each_value_is_a_head_of_each():
  """Features of values do not meet: each may be a head with a value of width 1."""
  there = recorded("delta_rule")
  q, k, v, beta = (there[f"inputs/{name}"] for name in ("q", "k", "v", "beta_v"))
  E = v.shape[-1]
  alone = lambda x: x.reshape(*x.shape[:2], -1, 1)
  q, k = jnp.repeat(scaled(q), E, axis=2), jnp.repeat(k, E, axis=2)
  beta, none = alone(beta), jnp.zeros_like(alone(v))
  h0_BHKE = there["inputs/h0"]
  B, H, K, _ = h0_BHKE.shape
  start = jnp.moveaxis(h0_BHKE, 2, 3).reshape(B, H * E, K, 1)
  out, state = sequential(StateUpdates(q, k, beta * alone(v), none, beta * k), start)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
  close(out.reshape(v.shape), there["outputs/per_channel_beta/o"])
  state = jnp.moveaxis(state.reshape(B, H, E, K), 2, 3)
  close(state, there["outputs/per_channel_beta/final_state"])


def made(L=150, decay=1.0, width=8, per_head=False, dtype=jnp.float32, seed=0):
  """Returns tokens of two rows: the first has three texts, the second begins in one."""
  random = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  q, k, v = (normal(2, L, 2, n) for n in (width, width, 6))
  beta = jax.nn.sigmoid(normal(2, L, 2, 1))
  log = -decay * jax.nn.softplus(normal(2, L, 2, 1 if per_head else width))
  first = jnp.zeros((2, L), bool).at[0, [0, 37, 96]].set(True)
  k = unit(k)
  wide = StateUpdates(q, k, beta * v, log, beta * k)
  return jax.tree.map(lambda x: x.astype(dtype), wide), first


@pytest.mark.parametrize("decay", [0.0, 0.1, 60.0])
@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("reads", ["", "read", "read and erase"])
def test_chunks_are_the_definition(decay, per_head, reads):
  """With texts that begin in the row, decays of all sizes, and a state before it."""
  tokens, first_BL = made(decay=decay, per_head=per_head)
  erase_BLHK = jnp.roll(tokens.key_BLHK, 1, axis=1) if "erase" in reads else None
  read_BLHK = tokens.read_BLHK if reads else None
  tokens = dataclasses.replace(tokens, read_BLHK=read_BLHK, erase_BLHK=erase_BLHK)
  compare_with_definition(tokens, first_BL)


@pytest.mark.parametrize("floor", [-2.0, -3.0])
def test_chunks_whose_decays_have_a_floor_are_the_definition(floor):
  """A chunk decays by no more than float32 holds, or by more."""
  tokens, first_BL = made(decay=4.0)
  decay = jnp.maximum(tokens.decay, floor)
  assert jnp.mean(decay == floor) > 0.2
  tokens = dataclasses.replace(tokens, decay=decay, floor=floor)
  compare_with_definition(tokens, first_BL)


def compare_with_definition(tokens, first_BL):
  random = np.random.default_rng(1)
  start = jnp.asarray(random.normal(size=(2, 2, 8, 6)), jnp.float32)
  grad_out = jnp.asarray(random.normal(size=(2, 150, 2, 6)), jnp.float32)

  def total(form, arrays, start):
    out, state = form(dataclasses.replace(arrays, first_BL=first_BL), start)
    return jnp.vdot(out, grad_out) + jnp.sum(jnp.sin(state)), (out, state)

  def both(form):
    run = functools.partial(total, form)
    return jax.jit(jax.grad(run, (0, 1), has_aux=True))(tokens, start)

  want, found = both(sequential), both(functools.partial(chunked, chunk=32))
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    assert np.isfinite(a).all()
    scale = max(1.0, float(jnp.abs(b).max()))
    np.testing.assert_allclose(a / scale, b / scale, atol=2e-5)


def test_a_text_does_not_read_the_one_before_it():
  tokens, first_BL = made()
  tokens = dataclasses.replace(tokens, first_BL=first_BL)
  whole = chunked(tokens)[0]
  alone = chunked(jax.tree.map(lambda x: x[:1, 37:96], tokens))[0]
  np.testing.assert_allclose(whole[:1, 37:96], alone, atol=1e-5)


def test_a_state_is_handed_on():
  tokens, _ = made()
  whole, last = chunked(tokens)
  one, state = chunked(jax.tree.map(lambda x: x[:, :70], tokens))
  two, after = sequential(jax.tree.map(lambda x: x[:, 70:], tokens), state)
  np.testing.assert_allclose(jnp.concatenate([one, two], 1), whole, atol=1e-5)
  np.testing.assert_allclose(after, last, atol=1e-5)


def test_narrow_inputs_are_added_up_in_float32():
  tokens, _ = made(dtype=jnp.bfloat16)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), tokens)
  for form in FORMS:
    found, want = form(tokens), form(wide)
    assert found[0].dtype == found[1].dtype == jnp.float32
    for a, b in zip(found, want, strict=True):
      np.testing.assert_array_equal(a, b)


def test_single_numbers_in_parallel_are_those_token_by_token():
  """With states that are forgotten, kept as they are, and one before the text."""
  random = np.random.default_rng(0)
  decay = -np.exp(3 * random.normal(size=(2, 37, 3)))
  decay[0, [0, 11]], decay[1, 5:9] = -np.inf, 0.0
  value, grad_out = random.normal(size=(2, 2, 37, 3))
  start = random.normal(size=(2, 3))

  def both(form):
    def total(value, start):
      states, last = form(jnp.asarray(decay), value, start)
      return jnp.vdot(states, grad_out) + jnp.sum(jnp.sin(last)), (states, last)

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))(value, start)

  found, want = both(elementwise), both(elementwise_sequential)
  by_hand = [start]
  for t in range(37):
    by_hand.append(np.exp(decay[:, t]) * by_hand[-1] + value[:, t])
  np.testing.assert_allclose(want[1][0], np.stack(by_hand[1:], 1), atol=1e-5)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
