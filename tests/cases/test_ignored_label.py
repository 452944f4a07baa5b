"""Labels outside of the vocabulary, as -100 where HuggingFace's data ignores a place.

Reported: one such label with weight 0 made the training loss NaN, while evaluation's
was right. Right: a place without weight is ignored, whatever its label; a label that
counts must be in the vocabulary, or the loss is undefined in training and evaluation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.training.loss import chunked_cross_entropy, cross_entropy

OUTSIDE = (-1, -100, 11, 2**31 - 1)
random = np.random.default_rng(0)
x_BLD = jnp.asarray(random.normal(size=(1, 4, 5)), jnp.float32)
output_VD = jnp.asarray(random.normal(size=(11, 5)), jnp.float32)
weight_BL = jnp.array([[0.0, 1, 1, 1]])


@jax.jit
def by_training(target_BL, weight_BL):
  """Returns ((loss, right), gradients by states and output)."""
  loss = lambda x, output: chunked_cross_entropy(x, output, target_BL, weight_BL, 0.1)
  return jax.value_and_grad(loss, (0, 1), has_aux=True)(x_BLD, output_VD)


def labelled(label):
  return jnp.array([[label, 1, 2, 3]])


@pytest.mark.parametrize("label", OUTSIDE)
def test_without_weight_it_changes_neither_the_loss_nor_a_gradient(label):
  got, want = (by_training(labelled(n), weight_BL) for n in (label, 4))
  jax.tree.map(np.testing.assert_array_equal, got, want)
  loss_BL = cross_entropy(x_BLD @ output_VD.T, labelled(label), 0.1, weight_BL)
  np.testing.assert_allclose(jnp.sum(loss_BL * weight_BL), want[0][0], rtol=1e-6)


@pytest.mark.parametrize("label", OUTSIDE)
def test_with_a_weight_the_loss_is_undefined(label):
  one_BL = jnp.ones((1, 4))
  assert np.isnan(by_training(labelled(label), one_BL)[0][0])
  loss_BL = cross_entropy(x_BLD @ output_VD.T, labelled(label), 0.1, one_BL)
  np.testing.assert_array_equal(np.isnan(loss_BL), [[True, False, False, False]])
