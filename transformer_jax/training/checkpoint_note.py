"""Note beside a checkpoint: names, shapes and checksums of leaves, library versions."""

import functools
import importlib.metadata
import json
import zlib
from typing import Any

import jax

from transformer_jax.training.checksum import fingerprints
from transformer_jax.training.unusable import CheckpointError

LIBRARIES = ("jax", "jaxlib", "flax", "orbax-checkpoint")


class Damage(Exception):
  """Raised if the content of a checkpoint differs from the saved content."""


def versions() -> dict[str, str]:
  """Returns library versions and the platform, which determine the last bits."""
  found = {name: importlib.metadata.version(name) for name in LIBRARIES}
  return found | {"platform": jax.default_backend()}


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns {"params.head.query_DHK": leaf}, in the order of the tree."""
  paths = jax.tree_util.tree_leaves_with_path(tree)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
  named = {name(path): leaf for path, leaf in paths}
  if len(named) < len(paths):
    raise ValueError("two leaves of the state have one name: rename a key with a dot")
  return named


def shapes(leaves: dict[str, Any]) -> dict[str, str]:
  """Returns {name: "float32[3, 4]"}, types and shapes of leaves."""
  return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def describe(leaves: dict[str, Any]) -> dict[str, Any]:
  """Returns a note on leaves: shapes, fingerprints, and versions of libraries."""
  prints = fingerprints(leaves)
  return {"leaves": shapes(leaves), "fingerprints": prints, "versions": versions()}


def check_leaves(where: str, saved: dict[str, str], wanted: dict[str, str]) -> None:
  """Raises CheckpointError for leaves that Orbax would silently cast or fill in."""
  names = sorted(n for n in saved | wanted if saved.get(n) != wanted.get(n))
  if names:
    absent = "(absent)"
    lines = [
      f"  {name}: there {saved.get(name, absent)}, now {wanted.get(name, absent)}"
      for name in names[:8]
    ]
    more = [f"  and {len(names) - 8} more"] if len(names) > 8 else []
    raise CheckpointError(
      f"{where} holds another model:\n" + "\n".join(lines + more) + "\n"
      "Choose another --workdir, or delete the folder if that run is not needed."
    )


def seal(note: dict[str, Any]) -> dict[str, Any]:
  """Returns the note with its own checksum."""
  return note | {"crc32": _crc32(note)}


def unseal(sealed: dict[str, Any]) -> dict[str, Any]:
  """Returns the note of `seal`; raises Damage if its checksum differs."""
  note = {key: value for key, value in sealed.items() if key != "crc32"}
  if sealed.get("crc32") != _crc32(note):
    raise Damage("the note beside the state differs from what was saved")
  return note


def _crc32(note: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps(note, sort_keys=True).encode())
