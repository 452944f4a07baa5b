"""Variants that read tokens: `token_data` and the hooks that get its results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model

from experiments.contract import variant as contract
from experiments.contract.attention_layers import compare_cores, make
from experiments.contract.harness import DIMS, MODES
from transformer_jax.attention import Variant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants import probe
from transformer_jax.attention.variants.alternate import Alternate
from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.models import Architecture, Transformer, capture, empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.models.param_tree import flat, nested, one_by_one
from transformer_jax.positions import coords, positions
from transformer_jax.positions.forgetting import Forgetting
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class Reader(Variant):
  """Reads tokens in every hook that can: a mask, a temperature, a bias, the value."""

  masks: bool = True

  def init(self, key, dims):
    draw = 0.3 * jax.random.normal(key, (2, dims.D, dims.H))
    return {"warm_DH": draw[0], "push_DH": draw[1], "share_H": jnp.full(dims.H, 0.5)}

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    return {
      "warm_BLH": jnp.exp(0.3 * x_BLD @ params["warm_DH"]),
      "push_BLH": jnp.tanh(x_BLD @ params["push_DH"]),
      "mark_BL": x_BLD[..., 0],
    }

  def accumulate(self, params, data, at):
    past_BLM = visible(at, at).astype(jnp.float32)
    return data | {"sum_BLH": jnp.einsum("BLM,BMH->BLH", past_BLM, data["push_BLH"])}

  def temperature(self, params, at):
    return at.data["warm_BLH"][..., None]

  def score(self, params, s_LM, tile):
    apart_LM = tile.q_data["sum_BLH"][:, None] - tile.k_data["sum_BLH"]
    return s_LM + params["share_H"] * jnp.sin(apart_LM)

  def mask(self, q_at, k_at):
    if not self.masks:
      return True
    same_BLM = q_at.order_BL[:, :, None] == k_at.order_BL[:, None, :]
    return same_BLM | (k_at.data["mark_BL"] > -0.5)[:, None, :]

  def own_value(self, params, x_BLD, o_BLHE, v_BLHE):
    return o_BLHE - (params["share_H"][:, None] * v_BLHE).astype(o_BLHE.dtype)

  def bidirectional(self):
    raise ValueError("it sums along the text; use it in a decoder")


@dataclasses.dataclass(frozen=True)
class Marked(Variant):
  """Gives weight to marked keys, and to a query's own token, at equal shares."""

  def token_data(self, params, x_BLD, q_BLHK):
    return {"mark_BL": x_BLD[..., 1].astype(jnp.float32)}

  def weigh_at(self, params, s_BHLM, mask_B1LM, q_at, k_at):
    own_BLM = q_at.order_BL[:, :, None] == k_at.order_BL[:, None, :]
    some_BLM = own_BLM | (k_at.data["mark_BL"] > 0)[:, None, :]
    w_BHLM = jnp.where(mask_B1LM & some_BLM[:, None], jax.nn.sigmoid(s_BHLM), 0.0)
    return w_BHLM / jnp.maximum(jnp.sum(w_BHLM, axis=-1, keepdims=True), 1e-9)


GROUPED = Sum((attentions.build("gqa(2)"), Reader()))
LOCAL = Sum((Reader(masks=False), attentions.build("window(9)")))
VARIANTS = {"reader": Reader(), "marked": Marked(), "grouped": GROUPED, "local": LOCAL}
ROPE, TOKENS = (
  positions.build("rope"),
  np.random.default_rng(0).integers(0, 11, (2, 24)),
)
START = jnp.zeros((2, 24, DIMS.D)), MODES["causal"]
SHARED = [
  "test_packed_and_padded_rows_equal_the_texts_alone",
  "test_texts_in_one_row_and_padding_are_worlds_apart",
  "test_the_future_has_zero_gradient_and_changes_nothing",
  "test_decoding_on_the_cache_equals_one_pass_for_every_seed",
  "test_attention_to_another_text_is_defined_or_refused",
  "test_every_parameter_learns_and_a_second_call_compiles_nothing",
  "test_bfloat16_stays_within_its_epsilon",
]


@pytest.mark.parametrize("name", ["grouped", "marked"])
@pytest.mark.parametrize("test", SHARED)
def test_a_variant_that_reads_tokens_keeps_the_contract(test, name):
  getattr(contract, test)(VARIANTS[name])


@pytest.mark.parametrize("core", ["blockwise", "ring", "pallas_tpu", "linear", "cudnn"])
@pytest.mark.parametrize("name", ["marked", "grouped", "local"])
def test_every_core_agrees_or_refuses(name, core):
  dense = make(VARIANTS[name], ROPE)
  refusal = cores.build(core).refusal(ROPE, dense.variant)
  assert (refusal is None) == (core in ("blockwise", "ring") and name != "marked")
  kinds = {mode: MODES[mode] for mode in ("causal", "packed", "left_padded")}
  compare_cores(dense, core, kinds)


def model_of(variant, position="rope", **more):
  arch = Architecture(DIMS, position, attention=variant, decoders=2, **more)
  model = Transformer(arch)
  return model, of_model(model, TOKENS[:, :4])


def loss_of(model):
  return lambda params: jnp.sum(jnp.sin(model.apply({"params": params}, TOKENS)))


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
  "core", ["dense", pytest.param("blockwise(block=7)", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("variant", [GROUPED, attentions.build("gqa(2) + xsa")])
def test_scan_remat_and_a_mesh_of_8_devices_change_nothing(variant, core):
  model, params = model_of(variant, core=core, scan=True, remat="full")
  want = jax.jit(jax.value_and_grad(loss_of(model)))(params)
  plain = model.clone(
    arch=dataclasses.replace(model.arch, scan=False, remat="none", core="dense")
  )
  unrolled = nested(one_by_one(flat(params)))
  close(jax.jit(loss_of(plain))(unrolled), want[0])
  mesh = sharding.make_mesh(data=2, tensor=2, fsdp=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, sharding.split(mesh, params))
    found = jax.jit(jax.value_and_grad(loss_of(model)))(placed)
  jax.tree.map(close, found, want)


@pytest.mark.parametrize("variant", [GROUPED, Marked(), attentions.build("xsa")])
def test_a_hybrid_decodes_what_it_reads(variant):
  """Every other layer reads tokens; the encoding has token data of its own."""
  hybrid = Alternate(variant, attentions.build("multihead"))
  model, params = model_of(hybrid, Forgetting())
  whole = jax.jit(lambda p: model.apply({"params": p}, TOKENS))(params)
  cache, found = empty_cache(model.arch, 2, 30), []
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  for start, end in ((0, 10), (10, 11), (11, 24)):
    at = coords.consecutive(1, end - start, start)
    out, cache = step(TOKENS[:, start:end], at, cache)
    found.append(out)
  close(jnp.concatenate(found, axis=1), whole)


def test_captured_arrays_are_those_that_the_core_reads():
  model, params = model_of(Reader())
  want = ("query", "scores", "weights", "output", "key_at")
  result, found = capture.run(model, params, TOKENS, want=want)
  close(result, model.apply({"params": params}, TOKENS))
  path = "decoder/layer_0/attention"
  names = {"warm_BLH", "push_BLH", "mark_BL", "sum_BLH"}
  assert set(found["key_at"][path].variant_data) == names
  w_BHLM = np.asarray(found["weights"][path])
  mark_BM = np.asarray(found["key_at"][path].variant_data["mark_BL"])
  unmarked_BHLM = np.broadcast_to((mark_BM <= -0.5)[:, None, None], w_BHLM.shape)
  assert (
    unmarked_BHLM.any() and not w_BHLM[unmarked_BHLM & ~np.eye(24, dtype=bool)].any()
  )


def test_equal_names_of_data_stay_apart():
  """In the encoding, and in two parts of a sum."""

  @dataclasses.dataclass(frozen=True)
  class Same(Variant):
    """Names its data as `forgetting` does."""

    factor: float = 1.0

    def token_data(self, params, x_BLD, q_BLHK):
      return {"kept_BLH": self.factor * q_BLHK[..., 0].astype(jnp.float32)}

    def score(self, params, s_LM, tile):
      return s_LM + tile.k_data["kept_BLH"]

  layers = [
    make(variant, Forgetting())
    for variant in (Same(3.0), Sum((Same(1.0), Same(2.0))), Same(0.0), Variant())
  ]
  once, twice, nothing, plain = (
    contract.outputs(layer, MODES["causal"]) for layer in layers
  )
  close(twice, once)
  close(nothing, plain)
  assert np.max(np.abs(once - nothing)) > 0.1


def test_cross_attention_has_no_data_of_the_keys_and_no_own_value():
  for variant, reason in (
    (Marked(), "reads data of both tokens"),
    (attentions.build("xsa"), "reads the token's own value"),
    (attentions.build("gqa(2) + xsa"), "reads the token's own value"),
  ):
    with pytest.raises(ValueError, match=f"in cross attention: .*{reason}.*decoder"):
      form(variant, "cross")
  with pytest.raises(SpecError, match="^xsa compares the output.*differential makes"):
    attentions.build("xsa + differential")


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("adaptive_scale('layer')", "source is 'layer'; write token or head"),
    ("asentmax(range=0)", "asentmax: range is 0; write a number above 0"),
    ("asentmax(alpha=1)", "alpha is 1; .* or adaptive_scale for a softmax"),
    ("asentmax + scale(1) + adaptive_scale", "both decide how a query meets a key"),
    ("dsa(0)", "k is 0; write a whole number from 1"),
    ("dsa(part=3)", "part is 3; write an even number up to its width, 32"),
    ("dsa(width=4, part=8)", "part is 8; write an even number up to its width, 4"),
    ("dsa(position='alibi')", "position is alibi, and the indexer turns by the pos"),
    ("dsa(position='fope')", "position is fope, .* write rope, or a scaled one"),
    ("nsa(blocks=2)", "blocks is 2; write a whole number from 3"),
    ("nsa + entmax", "nsa and entmax both decide how scores become weights"),
    ("dsa + moba", "dsa and moba both decide which keys a query selects"),
  ],
)
def test_bad_arguments_are_one_sentence(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("dsa(latent=7)", "dsa.latent=7. reads the latent of queries.*mla.queries=7"),
    (
      "mla(latent=5, part=2, queries=6) + dsa(latent=7)",
      "dsa.latent=7. .* makes one of 6; write mla.queries=7. . dsa, or latent=6",
    ),
    ("nsa(groups=3)", "groups is 3, which does not divide 4 heads"),
    ("differential_v2(4)", "4 groups of keys do not divide 2 pairs"),
  ],
)
def test_sizes_that_do_not_fit_are_refused_when_built(spec, says):
  with pytest.raises(ValueError, match=says):
    jax.eval_shape(make(attentions.build(spec), ROPE).init, jax.random.key(0), *START)


def test_another_text_or_later_tokens_are_refused_where_they_mean_nothing():
  for spec in ("asentmax", "adaptive_scale", "dsa", "nsa", "xsa"):
    with pytest.raises(ValueError, match="in cross attention: .*use it in a decoder"):
      form(attentions.build(spec), "cross")
  with pytest.raises(ValueError, match="nsa in encoder.*use it in a decoder"):
    form(attentions.build("nsa"), "encoder")
  assert form(attentions.build("differential_v2"), "cross")


def own(**members):
  """Returns an object of a user's class."""
  cls = type("Mine", (Variant,), {"__module__": __name__, **members})
  return dataclasses.dataclass(frozen=True)(cls)()


def ahead(self, params, x_BLD, q_BLHK):
  return {
    "mean_BL": jnp.mean(x_BLD, axis=(1, 2), keepdims=True)[..., 0] + x_BLD[..., 0]
  }


def first(self, params, x_BLD, q_BLHK):
  return {"mark_BL": x_BLD[..., 0]}


WRONG = {
  "'mark' has the shape .2, 7.; let its name end in its axes": {
    "token_data": lambda self, params, x, q: {"mark": x[..., 0]}
  },
  "token_data returns a tuple; return a dict": {
    "token_data": lambda self, params, x, q: (x,)
  },
  "token_data of some tokens differs": {"token_data": ahead},
  "score returns .5,. where one head's": {
    "score": lambda self, params, s_LM, tile: s_LM[:, 0]
  },
  "score of a tile differs": {
    "score": lambda self, params, s_LM, tile: s_LM - jnp.mean(s_LM, 1, keepdims=True)
  },
  "temperature returns .1, 5. where t_BLH1": {
    "token_data": first,
    "temperature": lambda self, params, at: at.data["mark_BL"][:1],
  },
  "reads 'mark_BL', which it does not get": {
    "temperature": lambda self, params, at: at.data["mark_BL"][..., None, None]
  },
  "own_value returns .2, 5, 4, 1. where o_BLHE": {
    "own_value": lambda self, params, x, o, v: o[..., :1]
  },
  "own_value of some tokens differs": {
    "own_value": lambda self, params, x, o, v: o - jnp.mean(v, 1, keepdims=True)
  },
  "weigh_at gives weight to keys that a query must not see": {
    "weigh_at": lambda self, params, s, mask, q_at, k_at: jax.nn.softmax(s)
  },
}


@pytest.mark.parametrize("message", WRONG)
def test_a_class_of_ones_own_that_breaks_the_contract_is_refused(message):
  with pytest.raises(SpecError, match=f"^Mine.*{message}"):
    probe.check(own(**WRONG[message]))


def test_a_class_of_ones_own_that_keeps_it_passes():
  for variant in (Reader(), Marked(), GROUPED):
    probe.check(variant)
