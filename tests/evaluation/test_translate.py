"""Translating lines with a run's folder: what comes out, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import inference, translate
from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.data.tokenizers import BOS, EOS, tokenizers
from transformer_jax.evaluation.beam import Beam
from transformer_jax.numpy_interpreter import trace
from transformer_jax.positions import coords
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.json_files import write_json

LONGEST = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run that was not trained long: two seeds as they start, and a vocabulary."""
  folder = tmp_path_factory.mktemp("run")
  config = resolve(
    base.get_config(),
    {
      "task": "translation('corpus', tokenizer='char(size=24)', max_length=7)",
      "seeds": (3, 5),
      "model.kind": "encoder_decoder",
      **{"model.width": 16, "model.heads": 2, "model.layers": 1},
      **{"model.feedforward": 16, "model.tied": False, "train.length": LONGEST},
    },
  )
  write_json(folder / "config.json", flatten(config))
  tokenizers.build("char(size=24)").train(["abcdefg hij"]).save(folder / "tokenizer")
  trainer = build(config).trainer
  state = jax.jit(jax.vmap(trainer.init))(jnp.array([3, 5], jnp.uint32))
  # Larger, so that one token is clearly the best, and another one in each place.
  state.params["output_DV"] *= 8.0
  with Keeper(folder / "checkpoints") as keeper:
    keeper.save(1, state, {"diverged": {}})
  return folder


def greedily(translator, texts):
  """Writes the most likely token again and again, without a cache."""
  encode = translator.tokenizer.encode
  source_BL = jnp.array([[*encode(text), EOS] for text in texts])
  at, token_BN = (
    coords.consecutive(1, source_BL.shape[1]),
    np.full((len(texts), 9), BOS),
  )
  variables = {"params": translator.params}
  apply = lambda token_BN: translator.model.apply(
    variables, token_BN, None, source_BL, at
  )
  apply = trace(apply, token_BN)
  for n in range(LONGEST):
    logits_BNV = apply(token_BN)
    token_BN[:, n + 1] = jnp.argmax(logits_BNV[:, n], axis=-1)
  ends = lambda row: itertools.takewhile(lambda n: n != EOS, row[1:])
  return [translator.tokenizer.decode(ends(row)) for row in token_BN.tolist()]


def test_each_line_gets_what_the_model_would_write(run):
  translator, lines = translate.load(run, seed=1), ["abc", "", "hij", "gab", "d e"]
  found = list(translate.translate(translator, Beam(1, "power(0.0)"), lines, 2))
  assert found[1] == "" and len({*found}) > 2
  wanted = iter(greedily(translator, [line for line in lines if line]))
  assert found == [next(wanted) if line else "" for line in lines]
  other = translate.load(run, seed=0)
  assert not np.array_equal(
    other.params["embedding_VD"], translator.params["embedding_VD"]
  )


def test_a_line_that_is_too_long_is_cut_and_said(run, capsys):
  translator, how = translate.load(run), Beam(1, "power(0.0)")
  texts = "jigabcdef", "jigabcd", "jigabc"
  say = inference.warn
  cut, whole, shorter = (translator([text, ""], how, say)[0] for text in texts)
  assert cut == whole != shorter
  assert "a line of 9 tokens is cut to 7" in capsys.readouterr().err


def test_what_cannot_be_used_is_one_sentence(run, tmp_path, monkeypatch):
  with pytest.raises(ConfigError, match=r"is no run: it has no config\.json"):
    translate.load(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ConfigError, match="its task is not a translation"):
    translate.load(tmp_path)
  with pytest.raises(ConfigError, match="--seed=2: this run has 2 seeds"):
    translate.load(run, seed=2)
  with pytest.raises(CheckpointError, match="1 checkpoints are there and 3 shall be"):
    translate.load(run, last=3)
  bad = tmp_path / "bad.txt"
  bad.write_bytes(b"good\nb\xffd\n")
  lines = inference.lines(str(bad))
  assert next(lines) == "good"
  with pytest.raises(ConfigError, match=r"bad\.txt, line 2: not UTF-8 \(byte 2\)"):
    next(lines)
