"""Names beside lines never overlap, and no two variants look alike."""

import json

import fake_sweep
import numpy as np
import pytest

from experiments.reporting import comparisons, findings, load, picture, style
from experiments.reporting.differences import differences
from experiments.reporting.length_curves import length_curves


@pytest.mark.parametrize("seed", range(50))
def test_spread_never_overlaps_and_keeps_the_order(seed):
  rng = np.random.default_rng(seed)
  count = rng.integers(1, 21)
  wanted, heights = rng.normal(0, 3, count).round(), rng.uniform(0.1, 3, count)
  far = heights.sum()
  centres = style.spread(wanted, heights, -far, far)
  order = np.argsort(wanted, kind="stable")
  gaps = np.diff(centres[order]) - (heights[order][1:] + heights[order][:-1]) / 2
  assert (gaps > -1e-9).all()
  assert (np.abs(centres) + heights / 2 <= far + 1e-9).all()


def test_spread_leaves_alone_what_has_room():
  wanted = np.array([5.0, 1.0, 3.0])
  np.testing.assert_allclose(style.spread(wanted, np.ones(3), 0, 10), wanted)


def test_names_of_20_long_variants_do_not_touch():
  figure, ax, _ = style.blank(60)
  ax.set_ylim(2, 4)
  rng = np.random.default_rng(0)
  label = "randomized(rope(base={}.0), max_positions=2048)"
  ends = {label.format(10**6 + i): (1.0, 2.5 + rng.random() / 20) for i in range(20)}
  looks = dict.fromkeys(ends, style.Style("#0072B2", "o", "-"))
  texts = style.name_ends(ax, ends, looks)
  renderer = figure.canvas.get_renderer()
  boxes = [text.get_window_extent(renderer) for text in texts]
  boxes.sort(key=lambda box: box.y0)
  for below, above in zip(boxes, boxes[1:], strict=False):
    assert below.y1 <= above.y0
  assert {text.get_text().replace("\n", "").replace(" ", "") for text in texts} == {
    label.replace(" ", "") for label in ends
  }


def test_twenty_variants_look_different():
  runs = tuple(load.LoadedRun(str(i), str(i), "text", "running") for i in range(20))
  sweep = load.Sweep(None, "", "", "", "0", ("text",), runs)
  looks = style.styles(findings.Findings(sweep, ()))
  assert len(looks) == len(set(looks.values())) == 20
  # Whoever sees no marker tells them apart by the line, whoever no colour by both.
  assert len({(look.color, look.line) for look in looks.values()}) == 20


def test_long_names_are_broken_where_a_reader_would():
  name = "randomized(rope(base=500000.0), max_positions=2048)"
  lines = style.wrap(name).split("\n")
  assert lines == ["randomized(rope(", "base=500000.0),", "max_positions=2048)"]
  assert style.wrap("rope") == "rope"


def wide(tmp_path):
  """Returns what is found where one difference is so wide that the frame cuts it."""
  means = {label: fake_sweep.TEXT[label] for label in ("none", "alibi", "rope")}
  content = {"text": ("bits_per_byte", means)}
  folder = fake_sweep.write_sweep(tmp_path, content, seeds=(0, 1))
  path = folder / "runs" / "text-02" / "result.json"
  scores = json.loads(path.read_text())["scores"]
  far = {0: -2.0, 1: 2.0}
  scores = [row | {"value": row["value"] + far[row["seed"]]} for row in scores]
  fake_sweep.edit(folder, "text-02", scores=scores)
  return comparisons.find(folder)


@pytest.mark.parametrize("draw", [differences, length_curves])
def test_an_interval_that_the_frame_cuts_has_an_arrow_there(
  draw, tmp_path, monkeypatch
):
  marked, plain = [], style.mark_cut

  def mark(ax, axis, at, ends, color):
    before = len(ax.lines)
    plain(ax, axis, at, ends, color)
    marked.extend((line.get_marker(), ends) for line in ax.lines[before:])

  monkeypatch.setattr(style, "mark_cut", mark)
  found = wide(tmp_path)
  more = [] if draw is differences else ["bits_per_byte"]
  drawn = draw(found, "text", *more)
  arrows = {"<", ">"} if draw is differences else {"v", "^"}
  assert {arrow for arrow, _ in marked} == arrows
  assert all(high - low > 10 for _, (low, high) in marked)  # of 2 seeds
  assert drawn.caption.endswith(style.CUT)


def test_one_length_gives_each_variant_a_place_of_its_own(tmp_path, monkeypatch):
  means = {label: fake_sweep.TEXT[label][:1] for label in ("none", "t5", "rope")}
  content = {"text": ("bits_per_byte", means)}
  folder = fake_sweep.write_sweep(tmp_path, content, lengths=(64,))
  finish = picture.finish

  def looked_at(figure, *rest):
    ax = figure.axes[0]
    assert [*ax.get_xticks()] == [0, 1, 2]
    assert ax.get_xlabel() == "variants, at 1x the training length (64)"
    points.extend(x.get_xdata()[0] for x in ax.lines if x.get_marker() != "None")
    return finish(figure, *rest)

  points = []
  monkeypatch.setattr(picture, "finish", looked_at)
  length_curves(comparisons.find(folder), "text", "bits_per_byte")
  assert {0, 1, 2} <= {*points}


def test_a_gap_at_the_last_length_does_not_cover_its_label(tmp_path, monkeypatch):
  means = {"none": (3.0, 3.1), "learned": (2.8, None)}
  fake_sweep.write_sweep(
    tmp_path, {"text": ("bits_per_byte", means)}, lengths=(64, 128)
  )
  boxes = {}

  def finish(figure, *_):
    renderer = figure.canvas.get_renderer()
    for text in (text for ax in figure.axes for text in ax.texts):
      boxes[text.get_text()] = text.get_window_extent(renderer)

  monkeypatch.setattr(picture, "finish", finish)
  length_curves(comparisons.find(tmp_path), "text", "bits_per_byte")
  assert not boxes["undefined"].overlaps(boxes["learned"])


@pytest.mark.parametrize("name", [None, "largest number"])
def test_the_axis_says_what_a_length_is(tmp_path, monkeypatch, name):
  folder = fake_sweep.write_sweep(
    tmp_path, {"sums": ("accuracy", {"none": (0.6, 0.2)})}
  )
  if name:
    fake_sweep.edit(folder, "sums-00", length_name=name)
  seen, finish = [], picture.finish

  def look(figure, *rest):
    seen.append(figure.axes[-1].get_xlabel())
    return finish(figure, *rest)

  monkeypatch.setattr(picture, "finish", look)
  found = comparisons.find(folder)
  title = length_curves(found, "sums", "accuracy").title
  wanted = name or "context length"
  assert title == f"sums: accuracy by {wanted}"
  assert seen == [f"{wanted}, as multiples of that of training"]
