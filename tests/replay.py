"""Whole models of other libraries, rebuilt around this project's attention.

All attention goes through `Attention` of `models.transformer`: its projections,
variant, encoding, core and cache. Norms, feed-forward layers, embeddings and heads are
written from the recorded models' conventions. Weights keep the names and layouts of the
recording, [out, in], and so do their gradients.
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.models.transformer import Architecture, Attention
from transformer_jax.positions import bind, coords, positions

LAYERS = 2  # of every recorded model


def under(weights, prefix):
  """Returns the weights whose names start so, without that start."""
  return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def linear(weights, name, x):
  """Applies a matrix [out, in], and adds a bias where there is one."""
  y = x @ weights[f"{name}.weight"].T
  return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def rms_norm(x, gain=1.0, epsilon=1e-6):
  return gain * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + epsilon)


def layer_norm(weights, name, x, epsilon=1e-5):
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + epsilon)
  return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def cross_entropy(logits_BLV, label_BL, counts_BL):
  """Returns the mean over the tokens that count."""
  log_BLV = jax.nn.log_softmax(logits_BLV)
  label_BL1 = jnp.maximum(label_BL, 0)[..., None]
  loss_BL = -jnp.take_along_axis(log_BLV, label_BL1, axis=-1)[..., 0]
  return jnp.sum(loss_BL * counts_BL) / jnp.sum(counts_BL)


@dataclasses.dataclass(frozen=True)
class Recorded:
  """A recorded model: its attention as specs of ours, and all else as code.

  All but the attention is Llama's here; subclasses change what other models do.

  epsilon     of norms
  both_ways   an encoder
  """

  attention: str
  position: str = "rope"
  K: int = 16  # width of a head
  D: int = 32
  H: int = 4
  epsilon: float = 1e-6
  both_ways: bool = False

  layers = "model.layers.{}."
  head = "lm_head"
  recorded_sum = False  # the output of attention was recorded with the residual added
  keys = property(lambda self: "GK" if "qa" in self.attention else "HK")
  use = property(lambda self: "encoder" if self.both_ways else "decoder")

  def architecture(self, core):
    dims = Dims(V=97, D=self.D, H=self.H, F=0, L=1, K=self.K)
    parts = positions.build(self.position), cores.build(core)
    variant = attentions.build(self.attention)
    return Architecture(dims, *parts, variant, decoders=LAYERS)

  def shared(self, weights):
    """Returns parameters of the encoding that all layers share."""
    return {}

  def embed(self, weights, token_BL):
    return weights["model.embed_tokens.weight"][token_BL]

  def place(self, weights, x_BLD, at, position):
    return position.embed(x_BLD, at)

  def layer_weights(self, weights, n):
    return under(weights, self.layers.format(n))

  def projections(self, w):
    """Returns the parameters of our attention for the weights of a layer."""
    names = dict(query="q_proj", key="k_proj", value="v_proj", out="o_proj")
    return self.heads({n: under(w, f"self_attn.{m}.") for n, m in names.items()})

  def heads(self, w):
    """Gives matrices [out, in] and their biases our names, and an axis of heads."""
    letters, params = "HK", {}
    for name in ("query", "key", "value"):
      params[f"{name}_D{letters}"] = w[name]["weight"].T.reshape(self.D, -1, self.K)
      if "bias" in w[name]:
        params[f"{name}_shift_{letters}"] = w[name]["bias"].reshape(-1, self.K)
      letters = self.keys
    params["out_HKD"] = w["out"]["weight"].T.reshape(self.H, self.K, self.D)
    return params | ({"out_shift_D": w["out"]["bias"]} if "bias" in w["out"] else {})

  def layer(self, w, x, attend):
    norm = lambda name, x: rms_norm(x, w[f"{name}.weight"], self.epsilon)
    x = x + attend(norm("input_layernorm", x))
    return x + self.feedforward(under(w, "mlp."), norm("post_attention_layernorm", x))

  def feedforward(self, w, x):
    gate = jax.nn.silu(linear(w, "gate_proj", x))
    return linear(w, "down_proj", gate * linear(w, "up_proj", x))

  def final_norm(self, weights, x):
    return rms_norm(x, weights["model.norm.weight"], self.epsilon)

  def logits(self, weights, x):
    return linear(weights, self.head, x)

  def loss(self, logits_BLV, there):
    label_BL = there["labels"][:, 1:]
    return cross_entropy(logits_BLV[:, :-1], label_BL, label_BL != -100)


@dataclasses.dataclass(frozen=True)
class Replay:
  """A recorded model that attends by a core of ours."""

  model: Recorded
  core: str

  @property
  def arch(self):
    return self.model.architecture(self.core)

  def run(self, weights, token_BL, at, caches=None):
    """Returns all that was recorded of a pass, and the caches after it."""
    model, arch = self.model, self.arch
    at = at.bidirectional() if model.both_ways else at
    encoding = form(arch.position, model.use)
    shared = bind(encoding, model.shared(weights), arch.dims)
    x_BLD = model.place(weights, model.embed(weights, token_BL), at, shared)
    seen, kept = {"hidden_states/0": x_BLD}, []
    for n in range(LAYERS):
      w = model.layer_weights(weights, n)

      def attend(x_BLD, n=n, w=w):
        module = Attention(arch, *arch.layer(model.use, n))
        params, cache = {"params": model.projections(w)}, caches and caches[n]
        update_BLD, cache, _ = module.apply(params, x_BLD, at, shared, cache=cache)
        seen.setdefault("layer0_attn_in", x_BLD)
        out_BLD = update_BLD + model.recorded_sum * seen["hidden_states/0"]
        seen.setdefault("layer0_attn_out", out_BLD)
        kept.append(cache)
        return update_BLD

      x_BLD = model.layer(w, x_BLD, attend)
      seen[f"hidden_states/{n + 1}"] = x_BLD
    seen[f"hidden_states/{n + 1}"] = x_BLD = model.final_norm(weights, x_BLD)
    return seen | {"logits": model.logits(weights, x_BLD)}, kept

  def loss(self, weights, there):
    """Returns the recorded loss, and what else was recorded."""
    at = coords.padded(there["attention_mask"])
    seen, _ = self.run(weights, there["input_ids"], at)
    return self.model.loss(seen["logits"], there), seen

  def greedy(self, weights, there):
    """Returns greedy tokens [B, steps] and the logits that chose them."""
    real_BL, (B, steps) = there["prompt_mask"], there["greedy_tokens"].shape
    caches = empty_cache(self.arch, B, real_BL.shape[1] + steps)

    def read(token_BL, at, caches):
      seen, caches = self.run(weights, token_BL, at, caches)
      return seen["logits"][:, -1], caches

    start = read(there["prompt_ids"], coords.padded(real_BL), caches)
    one = lambda token_B1, at_B1, caches: read(
      token_B1, coords.consecutive(B, 1, start=at_B1), caches
    )
    return write(one, *start, jnp.sum(real_BL, axis=1, keepdims=True), steps)


def write(read, logits_BV, caches, start, steps):
  """Returns greedy tokens [B, steps] and the logits that chose each.

  read(token_B1, place, caches): logits after one more token, and the caches
  """

  def step(carry, n):
    logits_BV, caches = carry
    token_B1 = jnp.argmax(logits_BV, axis=-1)[:, None]
    return read(token_B1, start + n, caches), (token_B1[:, 0], logits_BV)

  carry = logits_BV, caches
  _, (token_NB, logits_NBV) = jax.lax.scan(step, carry, jnp.arange(steps))
  return token_NB.T, jnp.moveaxis(logits_NBV, 0, 1)
