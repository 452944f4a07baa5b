"""Summarization: an encoder reads a text, a decoder writes its summary.

Rush et al., 2015. https://arxiv.org/abs/1509.00685
"""

import dataclasses
from typing import ClassVar

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.language.translation import Translation


@tasks.register("summary")
@dataclasses.dataclass(frozen=True)
class Summary(Translation):
  r"""Summarization: predicts the next token of a summary; arguments as `translation`.

  Summaries that are generated are scored by ROUGE, beside the first words of the text
  and the summary of the most similar training text.

  source     as of `translation`: 'tfds:debian_synopses', a .tsv file of texts and
             summaries, ...
  pair       the columns of the text and of its summary

  >>> import pathlib, tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in "train", "test":
  ...     path = pathlib.Path(folder, f"{split}.tsv")
  ...     _ = path.write_text("Cats purr, and dogs do not.\tCats purr.\n")
  ...   data = tasks.build(f"summary({folder!r}, tokenizer='byte')").load()
  >>> data[1]["pairs"]
  {'train': 1, 'test': 1}
  """

  pair: str = "text-summary"
  tokenizer: str = "subword(size=4000)"

  generation: ClassVar[str] = "summaries"
