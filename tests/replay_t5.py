"""The recorded T5: attention between two texts, without a scale, with a shared bias."""

import dataclasses

import jax
import jax.numpy as jnp
from replay import cross_entropy, linear, rms_norm, under, write

from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.models.transformer import Architecture, Attention
from transformer_jax.positions import bind, coords, positions


@dataclasses.dataclass(frozen=True)
class T5:
  """Two layers that read and two that write, each stack with its table of biases."""

  core: str

  @property
  def arch(self):
    dims = Dims(V=97, D=32, H=4, F=40, L=1)
    parts = positions.build("t5"), cores.build(self.core), attentions.build("scale(0)")
    return Architecture(dims, *parts, encoders=2, decoders=2)

  def stack(self, weights, use, token_BL, at, memory=None, caches=None):
    """Returns all that was recorded of a stack, and the caches after it."""
    w, arch = under(weights, f"{use}."), self.arch
    table_NH = w["block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    params = {"table_HN": table_NH.T}
    shared = bind(form(arch.position, use), params, arch.dims)
    x_BLD, kept = weights["shared.weight"][token_BL], []
    seen = {f"{use}_hidden_states/0": x_BLD}
    for n in range(2):
      layers = [under(w, f"block.{n}.layer.{part}.") for part in range(3)]
      norm = lambda part, x, layers=layers: rms_norm(
        x, layers[part]["layer_norm.weight"]
      )
      inner_BLD = norm(0, x_BLD)
      own = Attention(arch, *arch.layer(use, n))
      params = {"params": projections(under(layers[0], "SelfAttention."))}
      cache = caches and caches[n]
      update_BLD, cache, _ = own.apply(params, inner_BLD, at, shared, cache=cache)
      kept.append(cache)
      seen.setdefault(f"{use[:3]}_layer0_attn_in", inner_BLD)
      seen.setdefault(f"{use[:3]}_layer0_attn_out", update_BLD)
      x_BLD = x_BLD + update_BLD
      if memory:
        cross = Attention(arch, *arch.layer("cross", n))
        params = {"params": projections(under(layers[1], "EncDecAttention."))}
        x_BLD = x_BLD + cross.apply(params, norm(1, x_BLD), at, memory=memory)[0]
      last = 2 if memory else 1
      inner_BLD = linear(layers[last], "DenseReluDense.wi", norm(last, x_BLD))
      x_BLD = x_BLD + linear(layers[last], "DenseReluDense.wo", jax.nn.relu(inner_BLD))
      seen[f"{use}_hidden_states/{n + 1}"] = x_BLD
    x_BLD = rms_norm(x_BLD, w["final_layer_norm.weight"])
    return seen | {f"{use}_hidden_states/{n + 1}": x_BLD}, kept

  def encode(self, weights, there):
    at = coords.padded(there["attention_mask"]).bidirectional()
    seen, _ = self.stack(weights, "encoder", there["input_ids"], at)
    return seen, (seen["encoder_hidden_states/2"], at)

  def logits(self, weights, seen):
    states_BLD = seen["decoder_hidden_states/2"]
    return linear(weights, "shared", states_BLD * self.arch.dims.D**-0.5)

  def loss(self, weights, there):
    """Returns the recorded loss, and what else was recorded."""
    read, memory = self.encode(weights, there)
    token_BL = there["decoder_input_ids"]
    at = coords.consecutive(1, token_BL.shape[1])
    wrote, _ = self.stack(weights, "decoder", token_BL, at, memory)
    logits_BLV, label_BL = self.logits(weights, wrote), there["labels"]
    loss = cross_entropy(logits_BLV, label_BL, label_BL != -100)
    return loss, read | wrote | {"logits": logits_BLV}

  def greedy(self, weights, there):
    """Returns greedy tokens [B, steps] and the logits that chose them."""
    _, memory = self.encode(weights, there)
    B, steps = there["greedy_tokens"].shape

    def read(token_B1, n, caches):
      at = coords.consecutive(B, 1, start=n)
      seen, caches = self.stack(weights, "decoder", token_B1, at, memory, caches)
      return self.logits(weights, seen)[:, -1], caches

    start = jnp.zeros((B, 1), jnp.int32)
    start = read(start, 0, empty_cache(self.arch, B, 1 + steps))
    return write(read, *start, 1, steps)


def projections(w):
  """Returns the parameters of our attention."""
  into = {"query": "q", "key": "k", "value": "v"}
  params = {f"{n}_DHK": w[f"{m}.weight"].T.reshape(32, 4, 8) for n, m in into.items()}
  return params | {"out_HKD": w["o.weight"].T.reshape(4, 8, 32)}
