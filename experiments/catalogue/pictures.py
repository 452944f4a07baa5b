"""Pictures of the catalogue, with their numbers as metadata.

A picture is drawn again only if its numbers change, not if another version of
matplotlib writes other bytes.
"""

import io
import json
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.catalogue import curves, weighings
from transformer_jax.attention import Variant
from transformer_jax.positions import PositionalEncoding

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
KEY = "Numbers"  # of the PNG text chunk
BLUE, GRAY = "#2a5db0", "#888888"


def arrays(thing: PositionalEncoding | Variant) -> dict[str, np.ndarray]:
  """Returns the numbers of the picture of an encoding or a variant."""
  if isinstance(thing, PositionalEncoding):
    return curves.curves(thing)
  return weighings.weighings(thing)


def path(thing: PositionalEncoding | Variant) -> Path:
  """Returns the file of an object's picture."""
  kind = "positions" if isinstance(thing, PositionalEncoding) else "attention"
  return FOLDER / kind / f"{thing.name}.png"


def is_stale(file: Path, plotted: dict[str, np.ndarray]) -> bool:
  """Returns whether a picture is missing or shows other numbers."""
  if not file.exists():
    return True
  with Image.open(file) as image:
    shown = json.loads(image.info.get(KEY, "{}"))
  return not same(shown, json.loads(numbers(plotted)))


def same(one: dict, other: dict) -> bool:
  """Returns whether the numbers of two pictures agree within 1% of their range."""
  if one.keys() != other.keys():
    return False
  pairs = [(np.array(one[n], float), np.array(other[n], float)) for n in one]
  return all(
    a.shape == b.shape and np.allclose(a, b, atol=0.01 * _range(b), equal_nan=True)
    for a, b in pairs
  )


def _range(x: np.ndarray) -> float:
  """Returns the largest difference of the finite numbers, 1 without any."""
  finite = x[np.isfinite(x)]
  return max(float(np.ptp(finite)), 1e-3) if finite.size else 1.0


def numbers(plotted: dict[str, np.ndarray]) -> str:
  """Returns the numbers as JSON; maps are subsampled by eight."""
  some = {name: x[::8, ::8] if name == "map_LM" else x for name, x in plotted.items()}
  rounded = {
    name: np.vectorize(lambda n: float(f"{n:.3g}"))(np.asarray(x, float)).tolist()
    for name, x in some.items()
  }
  return json.dumps(rounded, separators=(",", ":"))


def draw(file: Path, plotted: dict[str, np.ndarray]) -> None:
  """Draws a picture and writes it with its numbers."""
  figure = Figure(figsize=(3.3, 1.35), dpi=160, layout="constrained")
  left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
  for name, function in LEFT.items():
    if name in plotted:
      function(left, plotted)
  map_LM = plotted["map_LM"]  # a few high weights would leave all others dark
  top = None if "lines_HN" in plotted else max(np.nanquantile(map_LM, 0.97), 1e-3)
  right.imshow(map_LM, cmap="viridis", interpolation="nearest", vmax=top)
  right.set(xlabel="key", ylabel="query", xticks=[], yticks=[])
  for axes in (left, right):
    axes.tick_params(labelsize=6, length=2)
    axes.xaxis.label.set_size(6.5)
    axes.yaxis.label.set_size(6.5)
    axes.spines[["top", "right"]].set_visible(False)
  data = io.BytesIO()
  figure.savefig(data, format="png")
  file.parent.mkdir(parents=True, exist_ok=True)
  _write(file, data, numbers(plotted))


def _write(file: Path, data: io.BytesIO, text: str) -> None:
  """Writes a small PNG, with 48 colours."""
  info = PngInfo()
  info.add_text(KEY, text, zip=True)
  with Image.open(data) as image:
    few = image.convert("RGB").quantize(48, dither=Image.Dither.NONE)
    few.save(file, pnginfo=info, optimize=True)


def _heads(axes, x_N, lines_HN, **style):
  """Draws one line per head, from dark to light."""
  for h, line_N in enumerate(lines_HN):
    shade = colormaps["viridis"](0.8 * h / max(len(lines_HN) - 1, 1))
    color = shade if len(lines_HN) > 1 else BLUE
    axes.plot(x_N[: len(line_N)], line_N, color=style.get("color", color), lw=1.1,
              ls=style.get("ls", "-"))  # fmt: skip


def _distances(axes, plotted):
  if "train_HN" in plotted:
    _heads(axes, np.arange(curves.L), plotted["train_HN"], color=GRAY, ls=":")
  _heads(axes, np.arange(curves.L), plotted["lines_HN"])
  axes.axvline(curves.TRAINED, color=GRAY, lw=0.5)
  _at_least(axes, 0.5)
  axes.set(xlabel="distance i - j", ylabel="change of score", xlim=(0, curves.L))


def _at_least(axes, span):
  """Widens the axis, so that noise does not look like a curve."""
  low, high = axes.get_ylim()
  if high - low < span:
    axes.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def _keys(axes, plotted):
  axes.plot(np.arange(1, weighings.L + 1), color=GRAY, ls=":", lw=1)
  axes.plot(plotted["keys_L"], color=BLUE, lw=1.1)
  axes.set(xlabel="query", ylabel="keys attended to")


def _scores(axes, plotted):
  plain_M = np.exp(weighings.SCORES)
  axes.plot(weighings.SCORES, plain_M / plain_M.sum(), color=GRAY, ls=":", lw=1)
  w_HM = plotted["scores_HM"]
  for h, w_M in enumerate(w_HM if not np.allclose(w_HM, w_HM[:1]) else w_HM[:1]):
    color = colormaps["viridis"](0.8 * h / (len(w_HM) - 1))
    axes.plot(weighings.SCORES, w_M, ".", color=color, ms=2.2)
  axes.set(xlabel="score q k / sqrt(K)", ylabel="weight")


def _values(axes, plotted):
  axes.plot(weighings.VALUES, weighings.VALUES / 2, color=GRAY, ls=":", lw=1)
  _heads(axes, weighings.VALUES, plotted["values_HN"])
  axes.set(xlabel="value", ylabel="output")


def _cache(axes, plotted):
  share = plotted["cache_N"]
  axes.barh(["cache", "params"], share, color=BLUE, height=0.5)
  axes.axvline(1, color=GRAY, ls=":", lw=1)
  axes.set(xlabel="share of multihead's", xlim=(0, max(1.2, share.max() * 1.1)))


LEFT = {
  "lines_HN": _distances,
  "keys_L": _keys,
  "scores_HM": _scores,
  "values_HN": _values,
  "cache_N": _cache,
}
