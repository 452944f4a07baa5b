"""Each file of a how-to page builds by the name that its commands give it."""

import importlib
import pathlib
import re
import sys

import pytest

import transformer_jax as tj
from transformer_jax.attention import attentions
from transformer_jax.data import task_probe
from transformer_jax.evaluation import measure_probe
from transformer_jax.evaluation.measures import measures
from transformer_jax.models.layers import activations
from transformer_jax.training.auxiliary import auxiliary_losses, auxiliary_probe

HOWTO = pathlib.Path(__file__).parents[2] / "docs" / "howto"
DIMS = dict(V=256, D=64, H=4, F=256, L=128)


def encoding(spec):
  tj.Architecture(tj.Dims(**DIMS), position=spec, decoders=1)


def variant(spec):
  tj.Architecture(tj.Dims(**DIMS), "rope", attention=spec, decoders=1)
  attentions.build(f"gqa(2) + {spec}")


def mixer(spec):
  hybrid = f"alternate({spec}, multihead, 2)"
  tj.Architecture(tj.Dims(**DIMS), "rope", attention=hybrid, decoders=2)


def task(spec):
  task_probe.check(tj.tasks.build(spec))


def activation(spec):
  tj.Architecture(tj.Dims(**DIMS), "rope", activation=spec, decoders=1)
  assert activations.build(spec)


def measure(spec):
  measure_probe.check(measures.build(spec))


def auxiliary(spec):
  arch = tj.Architecture(tj.Dims(**DIMS), "rope", decoders=2)
  losses = (auxiliary_losses.build(spec),)
  auxiliary_probe.check(losses, tj.Transformer(arch), tj.tasks.build("copy"), 4, True)


PAGES = {
  "own_encoding": encoding,
  "own_attention": variant,
  "own_mixer": mixer,
  "own_task": task,
  "own_measure": measure,
  "own_auxiliary_loss": auxiliary,
  "own_model_option": activation,
}


@pytest.mark.parametrize("page", PAGES)
def test_a_file_of_ones_own_works_by_the_name_on_its_page(page, tmp_path, monkeypatch):
  text = (HOWTO / f"{page}.md").read_text()
  (file,) = re.findall(r"[Ss]ave(?:\s+this)?\s+as\s+`(\w+)\.py`", text)
  (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  (tmp_path / f"{file}.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  specs = {*re.findall(rf"{file}:\w+(?:\([^)]*\))?", text)}
  assert specs
  for spec in specs:
    PAGES[page](spec)
  sys.modules.pop(file)
