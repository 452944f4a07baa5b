"""Every registered encoding trains in a whole model, through the trainer. Slow."""

import dataclasses

import jax
import pytest
from test_positions import with_ids
from test_training import Cycle

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import positions
from transformer_jax.training import optimizers
from transformer_jax.training.step import Trainer

STEPS, L = 40, 12
DIMS = Dims(V=8, D=32, H=4, F=64, L=L)


@dataclasses.dataclass(frozen=True)
class Placed(Cycle):
  """Counts up, and says of each token all that any encoding wants to know."""

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    batch = super().batch(arrays, key, batch_size, length, progress)
    return dataclasses.replace(batch, at=with_ids(batch.at))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(positions))
def test_it_learns_to_count(name):
  position, core = positions.build(name), cores.build("dense")
  model = Transformer(Architecture(DIMS, position, core, decoders=2))
  optimizer, rate = optimizers.build("adamw(lr=1e-2)", "constant", 1.0, STEPS, DIMS.D)
  trainer = Trainer(
    model, Placed(), optimizer, rate, batch_size=16, length=L, planned=STEPS
  )
  train = jax.jit(lambda: trainer.steps((), trainer.init(0), STEPS))
  _, metrics = train()
  start, end = metrics["loss"][0], metrics["loss"][-1]
  assert start > 1.5 and end < 0.3, (start, end)  # log 8 is 2.08
