"""A layer's mixer, with its parameters."""

import flax.linen as nn

from transformer_jax.attention import Mixer
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.parameters import own, weights


class Mixing(nn.Module):
  """A mixer with its parameters, in the place of attention.

  >>> import jax
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> dims = Dims(V=5, D=8, H=2, F=16, L=8)
  >>> arch = Architecture(dims, "none", attention="gated_delta", decoders=1)
  >>> layer, x_BLD = Mixing(arch, arch.attention), jax.numpy.ones((1, 3, 8))
  >>> args = x_BLD, coords.consecutive(1, 3)
  >>> jax.eval_shape(layer.init, jax.random.key(0), *args)["params"]["gate_DHE"].shape
  (8, 2, 4)
  """

  arch: Architecture
  mixer: Mixer

  @nn.compact
  def __call__(self, x_BLD, at, cache=None):
    """Returns (update_BLD, cache).

    x_BLD   normalized input
    at      coordinates of its tokens
    cache   of this layer while decoding, or None
    """
    dims = self.arch.dims
    params = weights(self, self.mixer.weights(dims)) | own(self, self.mixer.init, dims)
    unroll = self.arch.written_out
    return self.mixer.mixed_by_state(params, x_BLD, at, cache, unroll)
