"""Names beside lines never overlap, and no two variants look alike."""

import numpy as np
import pytest

from experiments import figures, findings, results


@pytest.mark.parametrize("seed", range(50))
def test_spread_never_overlaps_and_keeps_the_order(seed):
  rng = np.random.default_rng(seed)
  count = rng.integers(1, 21)
  wanted, heights = rng.normal(0, 3, count).round(), rng.uniform(0.1, 3, count)
  far = heights.sum()
  centres = figures.spread(wanted, heights, -far, far)
  order = np.argsort(wanted, kind="stable")
  gaps = np.diff(centres[order]) - (heights[order][1:] + heights[order][:-1]) / 2
  assert (gaps > -1e-9).all()
  assert (np.abs(centres) + heights / 2 <= far + 1e-9).all()


def test_spread_leaves_alone_what_has_room():
  wanted = np.array([5.0, 1.0, 3.0])
  np.testing.assert_allclose(figures.spread(wanted, np.ones(3), 0, 10), wanted)


def test_names_of_20_long_variants_do_not_touch():
  figure, ax, _ = figures.blank(60)
  ax.set_ylim(2, 4)
  rng = np.random.default_rng(0)
  label = "randomized(rope(base={}.0), longest=2048)"
  ends = {label.format(10**6 + i): (1.0, 2.5 + rng.random() / 20) for i in range(20)}
  looks = dict.fromkeys(ends, figures.Style("#0072B2", "o", "-"))
  texts = figures.name_ends(ax, ends, looks)
  renderer = figure.canvas.get_renderer()
  boxes = [text.get_window_extent(renderer) for text in texts]
  boxes.sort(key=lambda box: box.y0)
  for below, above in zip(boxes, boxes[1:], strict=False):
    assert below.y1 <= above.y0
  assert {text.get_text().replace("\n", "").replace(" ", "") for text in texts} == {
    label.replace(" ", "") for label in ends
  }


def test_twenty_variants_look_different():
  runs = tuple(results.Run(str(i), str(i), "text", "running") for i in range(20))
  sweep = results.Sweep(None, "", "", "", "0", ("text",), runs)
  looks = figures.styles(findings.Findings(sweep, ()))
  assert len(looks) == len(set(looks.values())) == 20
  # Whoever sees no marker tells them apart by the line, whoever no colour by both.
  assert len({(look.color, look.line) for look in looks.values()}) == 20


def test_long_names_are_broken_where_a_reader_would():
  name = "randomized(rope(base=500000.0), longest=2048)"
  lines = figures.wrap(name).split("\n")
  assert lines == ["randomized(rope(", "base=500000.0),", "longest=2048)"]
  assert figures.wrap("rope") == "rope"
