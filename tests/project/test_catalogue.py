"""docs/positions.md says what the code declares, and every cell of its table holds."""

import re

import numpy as np
import pytest

from experiments import catalogue
from experiments.catalogue import encodings, parts, pictures
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.models.compatibility import MODES, USES, form, refusal
from transformer_jax.positions import PositionalEncoding, positions


def test_a_stale_page_is_named_with_the_command_that_mends_it(
  monkeypatch, tmp_path, capsys
):
  """That no page is stale is checked by `make lint`: a new file asks for no test."""
  monkeypatch.setattr(catalogue, "DOCS", tmp_path)
  monkeypatch.setattr(catalogue, "shown", lambda: [])
  (tmp_path / "same.md").write_text("as it is")
  (tmp_path / "old.md").write_text("as it was")
  assert catalogue.check({"same.md": "as it is"}) == 0
  assert catalogue.check({n: "as it is" for n in ("same.md", "old.md", "new.md")}) == 1
  said = capsys.readouterr().err
  assert "old.md" in said and "new.md" in said and "same.md" not in said
  assert "python -m experiments.catalogue" in said
  assert catalogue.main(["--chek"]) == 2 and "--check" in capsys.readouterr().err


def test_a_picture_is_drawn_again_when_its_numbers_change(tmp_path):
  alibi, file = positions.build("alibi"), tmp_path / "alibi.png"
  found = pictures.arrays(alibi)
  assert pictures.is_stale(file, found)
  pictures.draw(file, found)
  assert not pictures.is_stale(file, found) and file.stat().st_size < 15_000
  np.testing.assert_allclose(found["lines_HN"][:, 8], -8 * 0.25 ** np.arange(1.0, 5.0))
  other = found | {"lines_HN": found["lines_HN"] * 1.05}
  assert pictures.is_stale(file, other)


@pytest.mark.slow
@pytest.mark.parametrize("registry", [positions, attentions], ids=lambda r: r.kind)
def test_pictures_show_what_the_code_does(registry):
  for name in registry:
    thing = registry.build(name)
    assert not pictures.is_stale(pictures.path(thing), pictures.arrays(thing)), name


@pytest.mark.parametrize("registry", [positions, attentions], ids=lambda r: r.kind)
def test_everything_has_a_paper_and_a_purpose(registry):
  for name in registry:
    thing = registry.build(name)
    assert "](http" in parts.paper(thing), name
    assert 10 < len(parts.purpose(thing)) < 90, name


@pytest.mark.parametrize("use", USES)
def test_every_cell_is_served_or_refused_by_one_error_that_names_both(use):
  for name in positions:
    encoding = positions.build(name)
    for mode in MODES:
      for core_name, core in cores.items():
        reason = refusal(encoding, core(), use, mode)
        if reason is None:
          continue
        both = (encoding.name, use) if "attention: " in reason else (mode, use)
        if core_name in reason:
          assert form(encoding, use).name in reason or "multihead" in reason
          both = (core_name,)
        assert all(part in reason for part in both), reason


@pytest.mark.parametrize("use", USES)
def test_every_variant_is_served_or_refused_by_one_error_that_names_both(use):
  none = PositionalEncoding()
  for name in attentions:
    variant = attentions.build(name)
    for core_name, core in cores.items():
      reason = refusal(none, core(), use, "train", variant)
      if reason is not None:
        other = use if "attention: " in reason else core_name
        named = name if other == use else form(variant, use).name
        assert named in reason and other in reason, reason


def test_parameters_are_counted_in_every_layer_that_has_its_own():
  count = lambda spec: encodings.parameters(positions.build(spec), "base")
  assert count("t5") == 32 * 8  # shared by all layers
  assert count("shaw") == 6 * 2 * 33 * 64  # of each layer
  assert count("every(3, shaw, t5)") == 2 * 2 * 33 * 64 + 32 * 8


@pytest.mark.parametrize(
  ("spec", "acts"),
  [
    ("grape_m", "queries and keys"),
    ("grape_m(contextual=True)", "reads tokens, queries and keys"),
    ("inkling", "reads tokens, scores"),
    ("inkling(floor=64)", "reads tokens, temperature, scores"),
    ("rope_yarn", "queries and keys"),
    ("rope_yarn(mscale_all=1.0)", "temperature, queries and keys"),
    ("dape", "bias, rows of scores"),
  ],
)
def test_an_encoding_acts_by_the_hooks_that_its_arguments_use(spec, acts):
  assert encodings.acts_on(positions.build(spec)) == acts


@pytest.mark.parametrize("registry", [positions, attentions], ids=lambda r: r.kind)
def test_a_transpose_is_no_prime_in_formulas(registry):
  """A prime is a new value, as in p' = p + shift; a transpose is written q^T k."""
  for name in registry:
    thing = registry.build(name)
    text = f"{parts.formula(thing)}\n{parts.purpose(thing)}"
    assert not re.search(r"\b\w\d?(_\w+)?' [A-Za-z(/]", text), (name, text)
