"""Texts to classify, and weights to start from."""

import numpy as np
import pytest
import recorded_bert


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  """Texts that end well or badly, which their last word says."""
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("texts")
  words = "the a day road house long short and went saw".split()
  rows = []
  for n in range(200):
    said = " ".join(rng.choice(words, 1 + n % 8))
    rows.append(f"{said} {('well', 'badly')[n % 2]}\t{('good', 'bad')[n % 2]}\n")
  (folder / "all.tsv").write_text("".join(rows))
  return folder / "all.tsv"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """The recorded BERT: its folder, and what was recorded."""
  folder = tmp_path_factory.mktemp("bert")
  return folder, recorded_bert.write(folder)
