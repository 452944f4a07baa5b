"""Bucket sort. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.sort import Sort


@tasks.register("bucket_sort")
@dataclasses.dataclass(frozen=True)
class BucketSort(Sort):
  """Writes the prompt's symbols in ascending order. The length counts them.

  Few symbols, so each is there many times, and no end token. Chance: 20 %.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("bucket_sort").problem(8)
  ([4, 4, 3, 0, 3, 4, 2, 3], [0, 2, 3, 3, 3, 4, 4, 4])
  """

  symbols: int = 5
  stops: ClassVar[bool] = False
