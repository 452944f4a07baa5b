"""The carry between layers, and every placement: all ways to read a text agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model

import transformer_jax as tj
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.shared_keys import ReadsKeys
from transformer_jax.models import capture, empty_cache
from transformer_jax.models.residual import placements
from transformer_jax.models.stack import Stack
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding

DIMS = tj.Dims(V=12, D=16, H=4, F=16, L=32)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 12))
CARRIED = [
  "gqa(2) + value_residual",
  "value_residual(mix='token', first=0.3)",
  "gqa(2) + value_embedding",
  "cross_layer(gqa(2), every=2)",
  "yoco(gated_delta, multihead, 1)",
]
MODELS = [{"attention": spec} for spec in CARRIED]
MODELS += [{"norm_placement": name} for name in placements]
MODELS += [{"embedding": "layer_tokens(width=6)", "norm_placement": "altup(laurel)"}]


def quickly(*few):
  """Returns all models; those whose part does not begin so are slow tests."""
  return [
    pytest.param(
      parts, marks=() if name_of(parts).startswith(few) else pytest.mark.slow
    )
    for parts in MODELS
  ]


def name_of(parts):
  return next(iter(parts.values()))


# A carry, keys of another layer, several streams, a tuple of outputs.
ON_MESHES = quickly("gqa(2) + value_residual", "yoco", "mhc", "attention_residuals")
READ = quickly(*CARRIED, "hyper_connections", "mhc", "attention_residuals", "layer_tok")
NO_SCAN = (
  "cross_layer",
  "yoco",
  "hyper_connections",
  "attention_residuals",
  "by_layer",
  "state_attention",
)


def model_of(parts, **more):
  arch = tj.Architecture(DIMS, "rope", **parts, decoders=3, **more)
  model = tj.Transformer(arch)
  return model, of_model(model, TOKENS[:, :4])


def logits(model, params, *args):
  return jax.jit(lambda p, *a: model.apply({"params": p}, *a))(params, *args)


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", READ, ids=name_of)
def test_decoding_packing_and_padding_equal_a_full_pass(parts):
  model, params = model_of(parts)
  whole = logits(model, params, TOKENS)
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  cache, found = empty_cache(model.arch, 2, 12), []
  for start in (0, 4, 8):
    at = coords.consecutive(1, 4, start)
    out, cache = step(TOKENS[:, start : start + 4], at, cache)
    found.append(out)
  close(jnp.concatenate(found, axis=1), whole)

  row = np.array([[1] * 5 + [2] * 7])
  packed = logits(model, params, TOKENS[:1], coords.packed(jnp.asarray(row)))
  close(packed[:, :5], whole[:1, :5])
  close(packed[:, 5:], logits(model, params, TOKENS[:1, 5:]))


@pytest.mark.parametrize("parts", ON_MESHES, ids=name_of)
def test_recomputed_layers_on_a_mesh_have_the_same_gradients(parts):
  model, params = model_of(parts)
  loss = lambda model: lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)))
  want = jax.jit(jax.value_and_grad(loss(model)))(params)
  again = model.clone(arch=dataclasses.replace(model.arch, remat="full"))
  with jax.set_mesh(mesh := sharding.make_mesh(data=2, tensor=2, sequence=2)):
    placed = jax.device_put(params, sharding.split(mesh, params))
    found = jax.jit(jax.value_and_grad(loss(again)))(placed)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    close(a, b)


def looped(params, layers):
  """Returns the parameters of one program for all layers."""
  decoder = params["decoder"]
  stacked = [decoder[f"layer_{n}"] for n in range(layers)]
  others = {n: x for n, x in decoder.items() if not n.startswith("layer_")}
  stack = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
  return params | {"decoder": others | {"layers": stack}}


@pytest.mark.parametrize("parts", READ, ids=name_of)
def test_one_program_for_all_layers_is_the_same_or_refused(parts):
  model, params = model_of(parts)
  scanned = model.clone(arch=dataclasses.replace(model.arch, scan=True))
  if name_of(parts).startswith(NO_SCAN):
    with pytest.raises(ValueError, match="set model.scan=False"):
      scanned.init(jax.random.key(0), TOKENS)
    return
  close(logits(scanned, looped(params, 3), TOKENS), logits(model, params, TOKENS))


def test_values_of_the_first_layer_are_mixed_into_later_ones():
  model, params = model_of({"attention": "value_residual"})
  look = lambda p: capture.run(model, p, TOKENS, want=("value", "state"))[1]
  found = jax.jit(look)(params)
  value, state = found["value"], found["state"]
  for n in range(3):
    layer = params["decoder"][f"layer_{n}"]
    before = "decoder/embedding" if n == 0 else f"decoder/layer_{n - 1}"
    x_BLD = np.asarray(state[before], np.float64)
    x_BLD = x_BLD / np.sqrt(np.mean(x_BLD**2, axis=-1, keepdims=True) + 1e-6)
    x_BLD = x_BLD * layer["attention_norm"]["gain_D"]
    w = layer["attention"]
    own_BLHK = np.einsum("BLD,DHK->BLHK", x_BLD, w["value_DHK"])
    first_BLHK = own_BLHK if n == 0 else first_BLHK  # noqa: F821
    want = (
      own_BLHK if n == 0 else (w["first_gain"] * first_BLHK + w["own_gain"] * own_BLHK)
    )
    close(value[f"decoder/layer_{n}/attention"], want)


def test_a_value_embedding_adds_a_gated_row_of_its_table():
  variant = tj.attentions.build("value_embedding")
  random = np.random.default_rng(0)
  table_VHE, gate_DH = random.normal(size=(5, 2, 3)), random.normal(size=(4, 2))
  x_BLD = random.normal(size=(1, 2, 4))
  v_BLHE = random.normal(size=(1, 2, 2, 3)).astype(np.float32)
  params = {"value_table_VHE": jnp.asarray(table_VHE), "value_gate_DH": gate_DH}
  carry = Carry().put("token_BL", jnp.array([[3, 1]]))
  kept, _ = variant.share(params, jnp.asarray(x_BLD), {"value": v_BLHE}, carry)
  gate_BLH = 2 / (1 + np.exp(-x_BLD @ gate_DH))
  close(kept["value"], v_BLHE + gate_BLH[..., None] * table_VHE[[[3, 1]]])


def attended(found, n, written_by, mask_LM):
  """Compares layer n with a softmax over the keys that another layer wrote."""
  at = lambda place, n: np.asarray(found[place][f"decoder/layer_{n}/attention"][0])
  for place in ("key", "value"):
    assert (at(place, n) == at(place, written_by)).all()
  group = 4 // at("key", n).shape[1]
  k_MHK, v_MHK = (np.repeat(at(place, n), group, axis=1) for place in ("key", "value"))
  s_HLM = np.einsum("LHK,MHK->HLM", at("query", n), k_MHK) / 2
  s_HLM[:, ~mask_LM] = -np.inf
  w_HLM = np.exp(s_HLM - s_HLM.max(-1, keepdims=True))
  w_HLM /= w_HLM.sum(-1, keepdims=True)
  close(at("output", n), np.einsum("HLM,MHK->LHK", w_HLM, v_MHK))


def captured(model, params):
  places = ("query", "key", "value", "output")
  look = lambda p: capture.run(model, p, TOKENS[:1], want=places)[1]
  return jax.jit(look)(params)


def test_readers_attend_to_the_keys_and_values_of_their_writer():
  model, params = model_of({"attention": "cross_layer(gqa(2), every=3)"})
  found = captured(model, params)
  for n in (1, 2):
    assert "key_DGK" not in params["decoder"][f"layer_{n}"]["attention"]
    attended(found, n, 0, np.tri(12, dtype=bool))


def test_upper_layers_read_the_keys_of_the_first_of_them():
  model, params = model_of({"attention": "yoco(window(3), multihead, 1)"})
  found, causal = captured(model, params), np.tri(12, dtype=bool)
  attended(found, 0, 0, causal & ~np.tri(12, k=-3, dtype=bool))
  attended(found, 1, 1, causal)
  attended(found, 2, 1, causal)
  assert "key_DHK" not in params["decoder"]["layer_2"]["attention"]


def test_shared_keys_are_cached_once():
  size = lambda spec: sum(
    x.size
    for own in empty_cache(model_of({"attention": spec})[0].arch, 1, 64)
    for x in jax.tree.leaves(own and own.kept)
  )
  assert size("cross_layer(every=3)") * 3 == size("multihead")
  assert size("yoco(window(4), multihead, 2)") == size("multihead")
  assert size("yoco(window(4), multihead, 1)") * 3 == size("multihead") * 2


def test_both_stacks_of_a_translator_share_within_themselves():
  parts = {"attention": "cross_layer(multihead + value_residual)"}
  arch = tj.Architecture(DIMS, "rope", **parts, encoders=2, decoders=2)
  model = tj.Transformer(arch)
  args = TOKENS, None, TOKENS[:, ::-1]
  params = jax.jit(model.init)(jax.random.key(0), *args)
  for stack, use in (("encoder", "encoder"), ("decoder", arch.decoding)):
    assert "key_DHK" not in params["params"][stack]["layer_1"]["attention"], use
  assert "key_DHK" in params["params"]["decoder"]["layer_1"]["cross"]
  whole = jax.jit(model.apply)(params, *args)
  memory = model.apply(params, TOKENS[:, ::-1], method="encode")
  cache = empty_cache(arch, 2, 12)
  first, cache = model.apply(
    params, TOKENS[:, :7], None, memory, cache, method="decode"
  )
  at = coords.consecutive(1, 5, 7)
  rest, _ = model.apply(params, TOKENS[:, 7:], at, memory, cache, method="decode")
  close(jnp.concatenate([first, rest], axis=1), whole)


def test_nothing_that_is_not_used_is_carried():
  model, _ = model_of({})
  stack = Stack(model.arch, "decoder", layers=3)
  assert not jax.tree.leaves(stack.first_carry(jnp.zeros((1, 2, 16)), TOKENS))


def test_readers_refuse_encodings_that_read_tokens():
  forgetting = tj.positions.build("forgetting")
  for spec in ("cross_layer", "yoco"):
    reason = tj.attentions.build(spec).refusal(forgetting)
    assert "forgetting" in reason and "; use an encoding of positions" in reason


def test_a_frozen_cache_holds_keys_that_were_rotated_once():
  parts = {"attention": "cross_layer(multihead, every=2)"}
  frozen, whole = [], []
  for spec, frozen_or_whole in ((parts, frozen), ({}, whole)):
    arch = tj.Architecture(DIMS, "rope_dynamic", **spec, decoders=2)
    model = tj.Transformer(arch)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS[:, :4])
    full = jax.jit(model.apply)(params, TOKENS)
    cache, found = empty_cache(arch, 2, 12, frozen=True), []
    for start in (0, 6):
      at = coords.consecutive(1, 6, start)
      token_BL = TOKENS[:, start : start + 6]
      out, cache = model.apply(params, token_BL, at, None, cache, method="decode")
      found.append(out)
    frozen_or_whole.append((jnp.concatenate(found, axis=1), full))
  for found, full in (*frozen, *whole):
    close(found, full)  # these texts are too short for other angles


def test_layers_that_read_keys_have_nothing_that_is_not_used():
  spec = "cross_layer(gqa(2) + value_residual + value_embedding, every=2)"
  model, params = model_of({"attention": spec})
  loss = lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)))
  grads = jax.jit(jax.grad(loss))(params)
  paths = jax.tree_util.tree_leaves_with_path(grads)
  idle = {jax.tree_util.keystr(path) for path, x in paths if not np.any(x)}
  first = "['decoder']['layer_0']['attention']"  # mixes with nothing, as documented
  assert idle == {f"{first}['first_gain']", f"{first}['own_gain']"}


def test_attention_between_texts_has_no_part_of_the_carry():
  for name in ("value_residual", "value_embedding"):
    assert tj.attentions.build(f"gqa(2) + {name}").cross().weights(DIMS) == {}
    assert tj.attentions.build(name).cross() == Variant()


class ReadsFirst(Variant):
  """A variant of a user's own, whose first layer reads what none wrote."""

  kv_from = "nowhere"


@pytest.mark.parametrize(
  "make, sentence",
  [
    (lambda: tj.attentions.build("cross_layer(every=1)"), "how many layers share"),
    (lambda: tj.attentions.build("yoco(layers=-1)"), "how many lower layers"),
    (lambda: tj.attentions.build("cross_layer(gated_delta)"), "keeps no keys"),
    (lambda: tj.attentions.build("yoco(window(2), mla)"), "keeps no keys"),
    (lambda: tj.attentions.build("value_residual(mix='all')"), "mix is 'all'"),
    (
      lambda: tj.attentions.build("value_residual(mix='token', first=1.0)"),
      "above 0 and below 1",
    ),
    (lambda: tj.attentions.build("mla + value_residual"), "mla keeps none"),
    (
      lambda: tj.Architecture(
        DIMS, "every(2, none, rope)", attention="cross_layer", decoders=2
      ),
      "use one encoding for both",
    ),
    (
      lambda: tj.Architecture(DIMS, "fope", attention="cross_layer", decoders=2),
      "use one encoding for both",
    ),
    (
      lambda: tj.Architecture(
        DIMS, "rope", attention="cross_layer + adaptive_scale", decoders=2
      ),
      "reads the keys of an earlier one",
    ),
    (
      lambda: tj.Architecture(
        DIMS,
        "rope",
        attention="alternate(cross_layer(gqa(1)), cross_layer(multihead), 2)",
        decoders=2,
      ),
      "no earlier layer writes",
    ),
    (
      lambda: tj.Architecture(DIMS, "rope", attention=ReadsKeys(Variant()), decoders=1),
      "no earlier layer writes",
    ),
    (
      lambda: tj.Architecture(DIMS, "rope", attention=ReadsFirst(), decoders=1),
      "no earlier layer writes",
    ),
  ],
)
def test_what_cannot_be_handed_on_is_refused_in_a_sentence(make, sentence):
  with pytest.raises((SpecError, ValueError), match=sentence):
    make()
