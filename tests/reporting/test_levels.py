"""Chance and the best possible value: in the figure, beside it, and under the table."""

import fake_sweep
import pytest

from experiments.reporting import comparisons, levels, picture, score_tables
from experiments.reporting.length_curves import length_curves

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def copying(tmp_path):
  """Writes a sweep whose runs recorded these values of chance."""

  def write(chance, headline="accuracy"):
    means = {"none": (0.6, 0.2), "rope": (0.9, 0.5)}
    content = {"copy": (headline, means)}
    folder = fake_sweep.write_sweep(tmp_path, content, lengths=(4, 16))
    for run, values in zip(("copy-00", "copy-01"), chance, strict=True):
      fake_sweep.edit(folder, run, chance={headline: values})
    return comparisons.find(folder)

  return write


def drawn(monkeypatch, found, measure):
  """Returns (names of levels, heights of thin lines) in the figure, and its caption."""
  seen, finish = [], picture.finish

  def look(figure, *rest):
    ax = figure.axes[0]
    thin = [line for line in ax.lines if line.get_alpha() == 0.6]
    seen.append(
      (
        {text.get_text() for text in ax.texts} & {levels.CHANCE, levels.BEST},
        [round(float(line.get_ydata()[-1]), 3) for line in thin],
      )
    )
    return finish(figure, *rest)

  monkeypatch.setattr(picture, "finish", look)
  caption = length_curves(found, "copy", measure).caption
  return caption, seen[-1]


def test_chance_and_the_best_value_are_drawn_and_named(copying, monkeypatch):
  found = copying([{"4": 0.0625, "16": 0.0625}] * 2)
  caption, (names, heights) = drawn(monkeypatch, found, "accuracy")
  assert names == {"chance", "best possible"} and heights == [0.062, 1.0]
  sentence = "Chance is 0.0625 and the best possible value is 1."
  assert sentence in caption
  assert sentence in score_tables.main_table(found, "copy").notes


def test_chance_may_depend_on_the_length(copying, monkeypatch):
  found = copying([{"4": 0.5, "16": 0.25}] * 2)
  assert levels.levels(found.of("copy"))["chance"] == {4: 0.5, 16: 0.25}
  _, (_, heights) = drawn(monkeypatch, found, "accuracy")
  assert heights == [0.25, 1.0]
  text = "Chance is 0.5 at 1x and 0.25 at 4x and the best possible value is 1."
  assert levels.sentence(found.of("copy")) == text


def test_of_runs_that_disagree_no_chance_is_named(copying):
  found = copying([{"4": 0.5}, {"4": 0.25}])
  assert levels.levels(found.of("copy")).keys() == {"best possible"}


def test_a_loss_has_no_line(copying, monkeypatch):
  loss = copying([{}, {}], "bits_per_byte")
  caption, (names, heights) = drawn(monkeypatch, loss, "bits_per_byte")
  assert not names and not heights and "possible" not in caption
