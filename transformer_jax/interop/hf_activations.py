"""Activations by their names in config.json."""

from transformer_jax.models.layers import (
  GeGLU,
  Gelu,
  QuickGelu,
  Relu,
  ReluSquared,
  Silu,
  SwiGLU,
  Tanh,
)

ACTIVATIONS = {
  "gelu": Gelu(approximate=False),
  "gelu_new": Gelu(),
  "gelu_fast": Gelu(),
  "gelu_pytorch_tanh": Gelu(),
  "quick_gelu": QuickGelu(),
  "relu": Relu(),
  "relu2": ReluSquared(),
  "silu": Silu(),
  "swish": Silu(),
  "tanh": Tanh(),
}
GATED = {
  "gelu": GeGLU(approximate=False),
  "gelu_new": GeGLU(),
  "gelu_pytorch_tanh": GeGLU(),
  "silu": SwiGLU(),
  "swish": SwiGLU(),
}
