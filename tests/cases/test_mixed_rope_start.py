"""Where mixed_rope starts in a model.

Reported: Flax gives each parameter a key, so its two parameters, cosine and sine of one
random angle, were of two angles in a model, though not in its own test. Right: the
start of the paper, in which a pair's direction has the length of its frequency and
neighbouring pairs are at right angles.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import coords, positions

DIMS = Dims(V=8, D=32, H=4, F=8, L=9)


@pytest.mark.parametrize("position", ["mixed_rope", "by_layer((mixed_rope, none))"])
def test_in_a_model_it_starts_as_in_the_paper(position):
  parts = DIMS, positions.build(position), cores.build("dense")
  arch = Architecture(*parts, attentions.build("multihead"), encoders=2, tied=False)
  read = jnp.zeros((1, 9), jnp.int32), coords.grid(3, 3)

  @jax.jit
  def start(key):
    params = Transformer(arch).init(key, *read)["params"]
    return params["encoder"]["layer_0"]["attention"]["position"]

  found = start(jax.random.key(0))
  own = {name.removeprefix("e0_"): x for name, x in found.items()}
  direction_HR = np.array(own["column_HR"]) + 1j * np.array(own["row_HR"])
  size_R = 10.0 ** -np.array([0, 0, 0.5, 0.5])
  np.testing.assert_allclose(np.abs(direction_HR), np.tile(size_R, (4, 1)), rtol=1e-5)
  turned = direction_HR[:, 1::2] / direction_HR[:, ::2]
  np.testing.assert_allclose(turned, np.full((4, 2), 1j), atol=1e-5)
  assert len({*np.angle(direction_HR[:, 0]).round(3)}) == 4  # each head has its own
