"""The quick test of attention variants of users; all of ours pass it."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from test_attentions import FEW, SPECS

from transformer_jax.attention import Variant, attentions
from transformer_jax.attention.variants import probe
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
from transformer_jax.spec import SpecError

# The contract in test_attentions.py claims it quickly of the others.
PROBED = [pytest.param(x, marks=[pytest.mark.slow] * (x in FEW)) for x in SPECS]


@pytest.mark.parametrize("spec", PROBED)
def test_every_variant_is_what_cores_rely_on(spec):
  variant = attentions.build(spec)
  parts = getattr(variant, "parts", (variant,))
  for part in parts:
    found = probe.probe(part)
    assert found.future == 0 and found.room < 1e-5 and found.border < 1e-5
    assert not found.idle


def variant(**members):
  """Returns an object of a user's class."""
  cls = type("Mine", (Variant,), {"__module__": __name__, **members})
  return dataclasses.dataclass(frozen=True)(cls)()


def rates(self, key, dims):
  return {"rate_H": jnp.full(dims.H, 0.5)}


def unmasked(self, params, s_BHLM, mask_B1LM):
  return jax.nn.softmax(s_BHLM, axis=-1)


def leaking(self, params, s_BHLM, mask_B1LM):
  return jnp.where(mask_B1LM, jax.nn.softmax(s_BHLM, axis=-1), 0.0)


def by_size(self, params, s_BHLM, mask_B1LM):
  return jnp.where(mask_B1LM, jnp.exp(s_BHLM) / s_BHLM.shape[-1], 0.0)


def normed(self, params, q_BLHK, k_BMGK):
  mean = lambda x: x - jnp.mean(x, axis=1, keepdims=True)
  return mean(q_BLHK), mean(k_BMGK)


WRONG = {
  "misspelt": ({"logit": lambda self, params, s_LM: s_LM * 2}, "rename it to logits"),
  "all heads": (
    {"logits": lambda self, p, s: s * p["rate_H"][:, None, None], "init": rates},
    "Mine.logits fails",
  ),
  "another shape": (
    {"logits": lambda self, params, s_LM: s_LM.sum(0)},
    "Mine.logits returns (7,) where one head's [L, M] must be (5, 7)",
  ),
  "no axis letter": (
    {"init": lambda self, key, dims: {"rate": jnp.ones(dims.H)}},
    "call it 'rate_H'",
  ),
  "a whole row": (
    {"logits": lambda self, p, s_LM: s_LM - s_LM.mean(1, keepdims=True)},
    "use weigh()",
  ),
  "no mask": ({"weigh": unmasked}, "must not see"),
  "a mask after the sum": ({"weigh": leaking}, "what later tokens hold"),
  "the size of an array": ({"weigh": by_size}, "count keys by mask_B1LM"),
  "other tokens": ({"condition": normed}, "Mine.condition of some tokens differs"),
  "an idle parameter": ({"init": rates}, "parameter 'rate_H' has no gradient"),
  "numbers for a mask": (
    {"mask": lambda self, q_at, k_at: 1.0 * (q_at.pos_BL[..., None] > 0)},
    "Mine.mask returns",
  ),
  "no projections": ({"projections": lambda self: None}, "returns None; return Proj"),
  "arguments": (
    {"sink_logit": lambda self: None},
    "write def sink_logit(self, params)",
  ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_untrue_is_refused_in_one_sentence_with_the_cure(case):
  members, says = WRONG[case]
  dims = Dims(V=7, D=16, H=2, F=16, L=8)
  with pytest.raises(SpecError) as error:
    Architecture(dims, "none", "dense", variant(**members), decoders=1)
  said = str(error.value)
  assert says in said and said.startswith("Mine") and "\n" not in said


RIGHT = {
  "a soft cap": {"logits": lambda self, p, s: p["rate_H"] * jnp.tanh(s), "init": rates},
  "a sink": {"sink_logit": lambda self, params: params["rate_H"], "init": rates},
  "a window": {
    "mask": lambda self, q, k: q.order_BL[:, :, None] - k.order_BL[:, None, :] < 3
  },
  "a sigmoid": {
    "pointwise": lambda self, p, s, keys: jax.nn.sigmoid(s - jnp.log(keys))
  },
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_passes(case):
  probe.check(variant(**RIGHT[case]))
