"""Control tasks: random labels that a probe can only memorize.

Hewitt and Liang, 2019, section 2. https://arxiv.org/abs/1909.03368. Each type of input
gets a random label, with the shares of the true labels. A type is a token, or a token
with those before it, where a vocabulary is so small that any probe knows it by heart,
or a pair of these. Selectivity is the accuracy less that of the control: a probe
without it shows what it learned itself, not what the states hold.
"""

import numpy as np

from transformer_jax.analysis.probes.predictions import Prediction


def control_labels(
  prediction: Prediction, share_C: np.ndarray, type_IN: np.ndarray, seed: int = 0
) -> np.ndarray:
  """Returns the control label of each sample, a function of its type alone.

  share_C   how often each class is among the true labels
  type_IN   of each sample, some numbers from -1 up
  seed      draws the labels of types

  >>> from transformer_jax.analysis.probes.predictions import Classes
  >>> share_C, type_IN = np.array([0.5, 0.5]), np.array([[7], [3], [7]])
  >>> labels = control_labels(Classes(2), share_C, type_IN)
  >>> bool(labels[0] == labels[2])
  True
  """
  types, inverse_I = np.unique(type_IN + 1, axis=0, return_inverse=True)
  uniform_NC = np.stack(
    [_uniform([seed, *n], prediction.count) for n in types.tolist()]
  )
  return prediction.draw(share_C, uniform_NC)[inverse_I.reshape(-1)]


def _uniform(seeds: list[int], count: int) -> np.ndarray:
  """Returns random numbers of one type, whichever other types are there."""
  return np.random.default_rng(seeds).random(count)
