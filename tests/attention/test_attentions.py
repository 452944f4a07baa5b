"""The contract that an attention variant inherits by being registered.

Every registered variant, and some sums of them, runs here as a model's layer does, with
its projections, its cache and its output; the contract is in experiments/contract,
where that of one's own classes is run too. A formula can still be wrong: see
test_weights.py. All cells of variant x encoding x core are in
test_matrix_attention.py.
"""

import dataclasses

import jax
import pytest
from registries import SCORED
from representatives import representatives

from experiments.contract.attention_layers import *  # noqa: F403, other tests use it
from experiments.contract.attention_layers import TILED, compare_cores, make
from experiments.contract.harness import DIMS, MODES
from experiments.contract.variant import *  # noqa: F403, the tests themselves
from experiments.contract.variant import looks_both_ways_or_is_refused
from transformer_jax.attention import Variant, attentions
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.models.compatibility import form
from transformer_jax.spec import SpecError

# Arguments that show something in 24 tokens and 4 heads, where the default does not.
ARGUMENTS = {
  "alternate": ["alternate(window(6), multihead)"],
  "by_layer": ["by_layer((window(6), multihead))"],
  "gqa": ["gqa(2)", "gqa(1, bias=True)"],
  "window": ["window(6)"],
  "short_conv": ["short_conv(3, 'silu', residual=True, bias=True)", "short_conv"],
  "softcap": ["softcap(2)"],
  "scale": ["scale(1)", "scale(0, learned=True)"],
  "entmax": ["entmax", "entmax(1.3, learned=True)"],
  "stick_breaking": ["stick_breaking", "stick_breaking(True, remainder=True)"],
  "sigmoid": ["sigmoid", "sigmoid(fixed=24)"],
  "moba": ["moba(4, 2)"],
  "mta": ["mta", "mta(queries=1, after=True)"],
  # Scores that are 40 times as large would have weights that rounding decides.
  "adaptive_scale": ["adaptive_scale + scale(0, 0.1)", "adaptive_scale('head')"],
  "asentmax": ["asentmax(range=0.5) + scale(0, 0.1)"],
  "differential_v2": ["differential_v2(1)"],
  "dsa": ["dsa(6, width=8, part=4)", "dsa(6, width=8, learned=True)"],
  "nsa": ["nsa(3, 4, window=5)"],
}
SUMS = ["gqa(2) + window(6) + softcap(5)", "mqa + sinks + window(6)"]
SUMS += ["gqa(2) + short_conv"]
SPECS = [spec for name in SCORED for spec in ARGUMENTS.get(name, [name])] + SUMS


def hooks_of(spec):
  """Returns the hooks of a variant that a core calls."""
  hooks = "scale temperature dot features score logits mask select sink_logit"
  hooks = [*hooks.split(), *"pointwise weigh weigh_at own_value token_data".split()]
  variant = attentions.build(spec)
  return tuple(hook for hook in hooks if variant.overrides(hook))


def features_of(spec):
  """Returns what a layer knows of a variant: hooks, parameters, kinds of heads."""
  variant = attentions.build(spec)
  learned = jax.eval_shape(lambda: variant.init(jax.random.key(0), DIMS))
  heads = variant.projections()
  found = {*hooks_of(spec), type(heads), ("rereads", variant.rereads)}
  found |= {("learned", hook) for hook in hooks_of(spec) if learned}
  found |= {field for field, x in vars(heads).items() if x and field in HEADS}
  for kind in ("encoder", "cross"):
    try:
      form(variant, kind)
    except ValueError:
      found.add(("refused", kind))
  return found


def slow_unless(quick):
  return () if quick else pytest.mark.slow


HEADS = "groups", "bias", "value", "clip"
# They stand for the others in the quick tests that compile a program. Each variant is
# compared with its paper in test_weights.py, test_projections.py or test_patterns.py,
# and probed in test_probe_attention.py.
FEW = representatives({spec: features_of(spec) for spec in SPECS})
# A core meets hooks; groups of heads and widths reach it as shapes.
MET_BY_CORES = {*representatives({spec: {*hooks_of(spec)} for spec in FEW})}
MET_BY_CORES |= {"mla", "scale(0, learned=True)"}
COMPARED = [attentions.build(spec) for spec in (FEW[0], "linear", "softcap(2)")]
CELLS = [
  pytest.param(spec, core, marks=slow_unless(quick and spec in MET_BY_CORES))
  for spec in SPECS
  for core in TILED
  for quick in [core in ("blockwise", "blockwise at once", "linear")]
]
# These compile nothing.
FOR_EACH = {
  "test_a_variant_is_a_value_with_a_name_and_refuses_what_it_does_not_know",
  "test_parameters_have_the_axes_of_their_names_and_a_mesh_can_split_them",
}


def pytest_generate_tests(metafunc):
  """Every test meets every variant; those that compile, quickly, a few of them."""
  name = metafunc.function.__name__
  if name != "test_every_core_gives_the_dense_answer_and_gradients":
    quick = SPECS if name in FOR_EACH else FEW
    specs = [pytest.param(spec, marks=slow_unless(spec in quick)) for spec in SPECS]
    metafunc.parametrize("variant", specs, indirect=True, scope="module")


@pytest.fixture(scope="module")
def variant(request):
  return attentions.build(request.param)


@pytest.mark.parametrize("variant,core", CELLS, indirect=["variant"], scope="module")
def test_every_core_gives_the_dense_answer_and_gradients(variant, core):
  compare_cores(make(variant), core, MODES)


def test_attention_that_looks_both_ways_is_defined_or_refused(variant):
  looks_both_ways_or_is_refused(variant, variant in COMPARED)


def parts(variant):
  return variant.parts if isinstance(variant, Sum) else (variant,)


def test_a_variant_is_a_value_with_a_name_and_refuses_what_it_does_not_know(variant):
  assert hash(variant) == hash(dataclasses.replace(variant))
  for part in parts(variant):
    assert attentions[part.name] is type(part)
    fields = {field.name for field in dataclasses.fields(part)}
    assert not fields & {*dir(Variant)}, "a field must not hide a hook"
    with pytest.raises(SpecError, match=f"{part.name}.* no argument 'nonsense'"):
      attentions.build(f"{part.name}(nonsense=1)")
  for n in range(3):
    assert isinstance(variant.layer(n), Variant)
