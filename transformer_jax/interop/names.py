"""Table entries that most families share: norms, dense layers, attention heads."""

from transformer_jax.interop.table import NameTable

PARTS = ("query", "key", "value")


def norm(path: str, name: str) -> NameTable:
  """Returns the rows of a norm, with or without a shift."""
  return {
    f"{path}/gain_D": (f"{name}.weight", "D"),
    f"{path}/shift_D": (f"{name}.bias", "D"),
  }


def dense(path: str, which: str, name: str, out_in: bool = True) -> NameTable:
  """Returns the rows of a feed-forward projection and its bias.

  path     of our layer
  which    "in_DF", "gate_DF" or "out_FD"
  name     of their module
  out_in   whether their matrix is [out, in]
  """
  kind, _, axes = which.rpartition("_")
  theirs = " ".join(axes[::-1] if out_in else axes)
  return {
    f"{path}/{which}": (f"{name}.weight", theirs),
    f"{path}/{kind}_shift_{axes[1]}": (f"{name}.bias", axes[1]),
  }


def out(path: str, name: str, out_in: bool = True) -> NameTable:
  """Returns the rows of attention's output projection."""
  return {
    f"{path}/out_HKD": (f"{name}.weight", "D HK" if out_in else "HK D"),
    f"{path}/out_shift_D": (f"{name}.bias", "D"),
  }


def heads(path: str, query: str, key: str, value: str, last: str) -> NameTable:
  """Returns the rows of attention with separate projections, each [out, in].

  Keys and values may have their own number of heads (G) or that of queries (H).

  path                      of our attention layer
  query, key, value, last   names of their modules; last: the output projection
  """
  rows = {}
  for part, name in zip(PARTS, (query, key, value), strict=True):
    for h in "H" if part == "query" else "HG":
      rows[f"{path}/{part}_D{h}K"] = f"{name}.weight", f"{h}K D"
      rows[f"{path}/{part}_shift_{h}K"] = f"{name}.bias", f"{h}K"
  return rows | out(path, last)


def fused(path: str, name: str, last: str, rows: str, out_in: bool = True) -> NameTable:
  """Returns the rows of attention with a fused QKV projection.

  path     of our attention layer
  name     of their fused module
  last     of their output projection
  rows     layout of the fused outputs: "*HK": all queries, all keys, all values; "H*K":
           a head's query, key and value; "G*K": a group's queries, key and value
  out_in   whether their matrices are [out, in]
  """
  table = {}
  for part in PARTS:
    for h in "H" if part == "query" or "G" not in rows else "G":
      table[f"{path}/{part}_D{h}K"] = (
        f"{name}.weight", f"{rows} D" if out_in else f"D {rows}",
      )  # fmt: skip
      table[f"{path}/{part}_shift_{h}K"] = f"{name}.bias", rows
  return table | out(path, last, out_in)
