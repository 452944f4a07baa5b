"""Values of config keys that are written otherwise today."""

from typing import Any

from transformer_jax import remat

# {key: {value: its name today}}.
FORMER: dict[str, dict[Any, Any]] = {"model.remat": remat.FORMER}
# {key: {value today: as runs of before have it in their ids}}.
IN_IDS: dict[str, dict[Any, Any]] = {
  "model.remat": {remat.NONE: False, remat.FULL: True}
}


def today(key: str, value: Any) -> Any:
  """Returns the value of a key as it is written today.

  >>> today("model.remat", True), today("model.scan", True)
  ('full', True)
  """
  return _other(FORMER, key, value)


def in_ids(key: str, value: Any) -> Any:
  """Returns the value of a key as older runs have it in their ids.

  >>> in_ids("model.remat", "full"), in_ids("model.remat", "dots_saveable")
  (True, 'dots_saveable')
  """
  return _other(IN_IDS, key, today(key, value))


def _other(names: dict[str, dict[Any, Any]], key: str, value: Any) -> Any:
  """Returns the other name of a value; values of other types have none."""
  if key not in names or not isinstance(value, bool | str):
    return value
  return names[key].get(value, value)
