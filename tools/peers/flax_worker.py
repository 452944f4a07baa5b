"""HuggingFace's Flax GPT-2, for `python -m experiments.bench`.

Runs in an environment of its own (requirements-peers-flax.txt) and is started by path.
"""

import importlib.metadata
import sys
from pathlib import Path

import jax
import optax

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments.bench.serve import serve  # noqa: E402


def step(kind, B, L, V=8192, D=256, H=8, N=6, dtype="float32"):
  """One step of GPT-2 on random tokens: loss, gradients, AdamW.

  kind         unused: there is one model
  B, L         sequences in the batch and their tokens
  V, D, H, N   vocabulary, width, heads and layers
  dtype        of the matrix products
  """
  from transformers import FlaxGPT2LMHeadModel, GPT2Config

  config = GPT2Config(
    vocab_size=V, n_positions=L, n_embd=D, n_layer=N, n_head=H,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
  )  # fmt: skip
  model = FlaxGPT2LMHeadModel(config, input_shape=(1, 8), dtype=dtype)
  optimizer = optax.adamw(1e-3)
  token_BL = jax.random.randint(jax.random.key(0), (B, L + 1), 0, V)

  def loss(params):
    logits_BLV = model(token_BL[:, :-1], params=params, train=False).logits
    cross = optax.softmax_cross_entropy_with_integer_labels
    return cross(logits_BLV.astype("float32"), token_BL[:, 1:]).mean()

  def update(params, moments):
    value, grads = jax.value_and_grad(loss)(params)
    updates, moments = optimizer.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments, value

  update = jax.jit(update, donate_argnums=(0, 1))
  held = [model.params, optimizer.init(model.params)]

  def run():
    *held[:], value = update(*held)
    return jax.block_until_ready(value)

  size = sum(x.size for x in jax.tree.leaves(model.params))
  return run, {"parameters": size, "loss": float(run())}


def versions():
  names = ("jax", "flax", "transformers")
  return {name: importlib.metadata.version(name) for name in names}


if __name__ == "__main__":
  serve({"step": step}, versions)
