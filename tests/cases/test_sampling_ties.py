"""Sampling among equally likely tokens.

Reported: top-p kept every token that was as likely as the last one, so with ten alike
and top_p=0.3 all ten were drawn; top-k did too. Right: the fewest tokens with that much
probability, and just k, those with smaller numbers first.
"""

import numpy as np
import pytest

from transformer_jax.evaluation.decode import Sampling
from transformer_jax.numpy_interpreter import evaluate

ALIKE = [[0.0] * 8]


def drawn(how, logits_BV):
  logits_BV = evaluate(how.logits, np.array(logits_BV, np.float32))
  return np.flatnonzero(np.isfinite(logits_BV[0])).tolist()


@pytest.mark.parametrize(
  "how,logits_BV,right",
  [
    (Sampling(top_p=0.5), ALIKE, [0, 1, 2, 3]),
    (Sampling(top_p=0.51), ALIKE, [0, 1, 2, 3, 4]),
    (Sampling(top_p=1e-6), ALIKE, [0]),
    (Sampling(top_k=3), ALIKE, [0, 1, 2]),
    (Sampling(top_k=4, top_p=0.5), ALIKE, [0, 1]),
    (Sampling(top_k=2), [[0.0, 3, 1, 1, 1]], [1, 2]),
    # Of tokens that are not alike the same ones are drawn as ever.
    (Sampling(top_p=0.6), [[0.0, 2, 1, -1]], [1]),
    (Sampling(top_p=0.7), [[0.0, 2, 1, -1]], [1, 2]),
  ],
)
def test_the_fewest_tokens_are_drawn(how, logits_BV, right):
  assert drawn(how, logits_BV) == right
