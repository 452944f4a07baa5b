"""Every chapter from recurrence to pretraining learns from its own config."""

import re

import jax
import numpy as np
import pytest

from experiments.configs import lineage
from experiments.runner.build import build
from experiments.setup import runs
from experiments.setup.validate import resolve, validate

WORDS = "the cell row text page file table menu opens closes and shows a new".split()
STEPS = 40
TINY = {"model.width": 16, "model.layers": 1, "model.heads": 2, "train.length": 16}
TINY |= {
  "train.batch_size": 16,
  "train.steps": STEPS,
  "train.steps_per_dispatch": STEPS,
}
TINY |= {"train.checkpoint_every": STEPS, "seeds": (0,), "train.schedule": "constant"}
TINY |= {"train.optimizer": "adamw(lr=1e-2)"}
CHAPTERS = {
  label: changes
  for chapter in lineage.CHAPTERS.values()
  for label, changes in chapter.items()
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """A folder of pairs, and one of texts, of few words."""
  root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
  line = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 3)))
  pairs = [line() for _ in range(200)]
  (root / "pairs").mkdir()
  for language, side in (("de", [x.upper() for x in pairs]), ("en", pairs)):
    (root / "pairs" / f"train.{language}").write_text("\n".join(side) + "\n")
  (root / "texts").mkdir()
  for n in range(8):
    text = " ".join(line() for _ in range(600))
    (root / "texts" / f"{n}.txt").write_text(text)
  return root


def tiny(label, corpus):
  """Returns a chapter's config with a small model and a small corpus."""
  config = resolve(lineage.get_config(), dict(CHAPTERS[label]))
  task = config.task.replace("tfds:libreoffice_help/de-en", f"{corpus}/pairs")
  task = task.replace("tfds:brown", f"{corpus}/texts").replace(
    "window=128", "window=64"
  )
  config.task = re.sub("subword\\(size=4000", "char(size=400", task)
  kept = (
    TINY
    if "feedforward" not in str(CHAPTERS[label])
    else TINY | {"model.feedforward": 32}
  )
  return resolve(config, kept)


def test_a_chapter_makes_a_step(corpus):
  experiment = build(tiny("BERT", corpus))
  arrays, _ = experiment.task.load()
  trainer = experiment.trainer
  steps = lambda: trainer.steps(arrays, trainer.init(0), STEPS)[1]["loss"]
  assert jax.eval_shape(steps).shape == (STEPS,)


@pytest.mark.slow  # test_finetune has an encoder that learns
@pytest.mark.parametrize("label", CHAPTERS)
def test_it_learns_from_its_config(label, corpus):
  config = tiny(label, corpus)
  validate(config)
  experiment = build(config)
  arrays, _ = experiment.task.load()
  trainer = experiment.trainer
  train = jax.jit(lambda: trainer.steps(arrays, trainer.init(0), STEPS)[1]["loss"])
  loss_N = np.asarray(train())
  assert np.all(np.isfinite(loss_N))
  assert loss_N[-5:].mean() < 0.75 * loss_N[0], loss_N


def test_the_plan_is_valid_and_has_every_chapter():
  todo = runs.expand(lineage.sweep(), lineage.get_config(), {})
  assert runs.baseline(lineage.sweep(), todo) == "Transformer"
  assert [each.label for each in todo] == [*CHAPTERS]
  for each in todo:
    validate(each.config)


@pytest.mark.parametrize(
  ("label", "holds"),
  [
    ("BERT", ("type_ND", "dense_DD", "shift_V", "embedding_norm")),
    ("T5", ("encoder", "decoder", "cross", "position")),
    ("Transformer, final norm", ("final_norm",)),
    ("LSTM, Luong", ("state_DD",)),
  ],
)
def test_a_chapter_has_the_parts_it_is_known_for(label, holds, corpus):
  params = str(build(tiny(label, corpus)).trainer.shapes.params)
  assert all(f"'{name}'" in params for name in holds)


def test_what_a_recurrent_model_lacks_is_refused(corpus):
  config = tiny("LSTM, bottleneck", corpus)
  for key, value in (("feedforward", 512), ("norm", "layernorm")):
    with pytest.raises(ValueError, match=f"has no {key}; leave it at"):
      build(resolve(config, {f"model.{key}": value}))
