"""Continuing prompts with a run's folder: what comes out, and what is refused."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

from experiments import generate
from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation.decode import Sampling
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import write_json

SMALL = {"model.width": 16, "model.heads": 2, "model.layers": 1, "seeds": (3,)}
SMALL |= {"model.feedforward": 16, "train.length": 16, "model.position": "learned"}
TASKS = {
  "text": ("text('corpus')", {}),
  "tokens": ("tokens('corpus', tokenizer='char(size=40)')", {}),
  "prefix_tokens": (
    "prefix_tokens('corpus', tokenizer='char(size=40)')",
    {"model.kind": "prefix_decoder"},
  ),
}


def made(folder, name):
  """Makes a run that was not trained, of clear preferences."""
  task, more = TASKS[name]
  config = resolve(base.get_config(), SMALL | more | {"task": task})
  write_json(folder / "config.json", flatten(config))
  if name != "text":
    letters = "abcdefghijklmnopqrstuvwxyz .,\nABCDEF"
    tokenizers.build("char(size=40)").train([letters]).save(folder / "tokenizer")
  state = random_parameters.state(build(config).trainer.shapes, 1)
  with Keeper(folder / "checkpoints") as keeper:
    keeper.save(1, state, {"diverged": {}})
  return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  return {name: made(tmp_path_factory.mktemp(name), name) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_the_most_likely_tokens_are_those_of_full_passes(name, runs):
  generator = generate.load(runs[name])
  prompts = ["abc", "a", "fedcb"]
  found = generator(prompts, steps=4)
  apply = jax.jit(generator.model.apply)
  for prompt, text in zip(prompts, found, strict=True):
    tokens = generator.tokenizer.encode(prompt)
    n = len(tokens)
    for _ in range(4):
      # No token attends to the padding after it: one program serves all lengths.
      token_BL = np.array([tokens + [0] * (16 - len(tokens))])
      at = generate.coords.consecutive(1, 16)
      at = at.prefix(jnp.array([[n]])) if name == "prefix_tokens" else at
      logits_BLV = apply({"params": generator.params}, token_BL, at)
      tokens.append(int(np.asarray(logits_BLV)[0, len(tokens) - 1].argmax()))
    assert text == generator._text(np.array(tokens[n:])), prompt


def test_draws_follow_their_key_and_a_low_temperature_is_greedy(runs):
  generator = generate.load(runs["tokens"])
  draw = lambda key, warm: generator(["ab"], 8, Sampling(warm), key)
  assert draw(0, 1e3) == draw(0, 1e3) != draw(1, 1e3)
  assert draw(0, 1e-3) == generator(["ab"], 8)


def test_batches_of_prompts_are_drawn_apart(runs, tmp_path, monkeypatch):
  (tmp_path / "prompts").write_text("ab\nab\n")
  asked = {"run": runs["tokens"], "seed": 0, "average": 1, "prompt": None, "key": 0}
  asked |= {"input": str(tmp_path / "prompts"), "batch_size": 1, "samples": 1}
  asked |= {"step": None, "tokens": 8, "temperature": 1e3, "top_k": 0, "top_p": 1.0}
  monkeypatch.setattr(generate, "FLAGS", types.SimpleNamespace(**asked))
  first, second = generate._answers()
  assert first != second


def test_what_cannot_be_continued_is_one_sentence(runs, tmp_path):
  generator = generate.load(runs["text"])
  with pytest.raises(ConfigError, match="a prompt has no token"):
    generator(["a", ""], 4)
  with pytest.raises(ConfigError, match="have 20 tokens and learned has 16 positions"):
    generator(["abcd"], 16)
  broken = jax.tree.map(lambda x: x * jnp.nan, generator.params)
  generator.params = broken
  with pytest.raises(ConfigError, match="its training diverged"):
    generator(["abcd"], 4)
  config = {"task": "copy", "train.length": 4, "train.schedule": "constant"}
  write_json(tmp_path / "config.json", config)
  with pytest.raises(ConfigError, match="its task is not a text to write but copy"):
    generate.load(tmp_path)
