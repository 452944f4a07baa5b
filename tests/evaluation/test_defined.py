"""What functions answer where there is nothing to answer with: none, NaN, out of range.

One table: a function, its input, and its answer. Undefined stays undefined: no mean of
nothing is 0, no choice among NaN is the first.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import similarity
from experiments.reporting import family, moderated, statistics, verdicts
from experiments.runner import train_loop
from transformer_jax.attention import attentions
from transformer_jax.attention.variants.bound_variant import BoundVariant, softmax
from transformer_jax.attention.variants.kernelized import divide
from transformer_jax.axes import Dims
from transformer_jax.data.tasks.labelled.baselines import guesses
from transformer_jax.evaluation import lengths, text_scores
from transformer_jax.evaluation.batch_scores import last_quarter, mean_of
from transformer_jax.evaluation.classifier import Classifier
from transformer_jax.evaluation.decode import Sampling, highest
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.heads import mean
from transformer_jax.positions import coords
from transformer_jax.training import dispatch_metrics, optimizers
from transformer_jax.training.loss import chunked_cross_entropy, cross_entropy

NAN, INF = math.nan, math.inf
NO_TESTS = family.ColumnTests(
  {("a", "none"): family.Unit(None), ("b", "none"): family.Unit(NAN)}
)
NAN_COLUMN = verdicts.Column(
  {"a": {0: 1.0, 1: 2.0}, "b": {0: NAN, 1: 2.0}}, "lower", [("b", "a")], [("b", "a")]
)
ONES, NO = jnp.ones((1, 2)), jnp.zeros((1, 2))
BAD = jnp.array([[NAN, 3.0]])
NO_PROBABILITY = jnp.full((1, 1, 3), NAN)
LABELS = Classifier(None, None, None, None, ("a", "b"), 8)
TRAINED = [("the red house", "one"), ("the blue sea", "two")]


def in_pieces(logits_BLV):
  return chunked_cross_entropy(
    logits_BLV, jnp.eye(3), jnp.array([[0]]), jnp.ones((1, 1))
  )[0]


def clipped(gradient):
  transform, _ = optimizers.build("adam(lr=0.1)", "constant", 1.0, 8, 8)
  params = {"a_D": jnp.ones(2)}
  return transform.update({"a_D": gradient}, transform.init(params), params)[0]["a_D"]


def kinds(type_BL):
  at = coords.consecutive(1, 3).replace(data={"type_BL": type_BL})
  params = {"type_ND": jnp.ones((2, 1))}
  return TokenEmbedding(power=0, types=2)(params, jnp.zeros((1, 3, 1)), at)[0, :, 0]


TABLE = {
  # Scores.
  "the mean over no example": (
    mean_of,
    (ONES[0], jnp.zeros(2, bool)),
    NAN,
  ),
  "the mean over some": (mean_of, (BAD[0], jnp.array([False, True])), 3.0),
  "the last quarter of nothing": (last_quarter, (NO,), NO),
  "the last quarter of one": (
    last_quarter,
    (1 - jnp.eye(2)[:1],),
    [[0, 1]],
  ),
  # Loss.
  "the loss of NaN": (cross_entropy, (NO_PROBABILITY, jnp.array([[0]])), [[NAN]]),
  "the loss of NaN in pieces": (in_pieces, (NO_PROBABILITY,), NAN),
  "clipping a gradient of 0": (clipped, (jnp.zeros(2),), [0.0, 0.0]),
  "a mean over steps without targets": (
    dispatch_metrics.mean_of_steps,
    (np.array([[NAN, NAN], [NAN, 2.0]]), np.array([[False, False], [False, True]])),
    [NAN, 2.0],
  ),
  # Choices.
  "the highest of NaN": (highest, (jnp.array([[NAN, 1.0], [1.0, NAN]]),), [-1, -1]),
  "the highest of nothing possible": (highest, (jnp.full((1, 3), -INF),), [-1]),
  "the highest of two": (highest, (jnp.array([[0.0, INF, INF]]),), [1]),
  # Attention.
  "the softmax of no key": (softmax, (NO[None, None], NO[None, None] > 0), 0.0),
  "features without a key": (divide, (NO, jnp.zeros((1, 1))), NO),
  "the mean of no token": (mean, (jnp.full((1, 2, 3), NAN), NO > 0), jnp.zeros((1, 3))),
  "a kind of token that there is none of": (
    kinds,
    (jnp.array([[2, 1, -1]]),),
    [NAN, 1, NAN],
  ),
  # Texts.
  "perplexity of NaN": (text_scores.perplexity, (NAN, 3), NAN),
  "perplexity past all floats": (text_scores.perplexity, (1e9, 1), INF),
  "bits of NaN": (text_scores.bits_per_byte, (NAN, 3), NAN),
  # Statistics.
  "no p value": (
    lambda: [*family.adjust({0: NO_TESTS}, "none").p[0].values()],
    (),
    None,
  ),
}


@pytest.mark.parametrize("name", [*TABLE])
def test_a_function_has_a_defined_answer(name):
  function, given, answer = TABLE[name]
  found = function(*given)
  if answer is None:
    assert found == [None] * len(found)
  else:
    found = np.asarray(found, np.float64)
    np.testing.assert_array_equal(found, np.broadcast_to(answer, found.shape))


SAID = {
  "no label for NaN": (
    lambda: [LABELS._answer(0, NAN)],
    [None],
  ),
  "nothing is near to unknown words": (
    lambda: text_scores.nearest_targets(TRAINED, ["red", "green cars", "", "the"]),
    ["one", "", "", ""],
  ),
  "why there is no score": (
    lambda: [lengths.why_undefined(*x) for x in ((0, 0), (5, 2), (5, 0))],
    [
      "no example has a target at this length",
      "logits of 2 of 5 examples are not numbers",
      "infinite: a target has probability 0",
    ],
  ),
  "a score that is no number": (
    lambda: [lengths._value(x, "why") for x in (NAN, INF, 1)],
    [{"value": None, "reason": "why"}, {"value": None, "reason": "why"}, {"value": 1}],
  ),
  "the bar of seeds without a loss": (
    lambda: [train_loop._losses(np.array([NAN, 2.0]), n) for n in (0, 1)],
    [{"loss": 2.0}, {"loss": 2.0, "diverged": "1 of 2 seeds"}],
  ),
  "the mean of no seed": (lambda: statistics.estimate([]), statistics.NOTHING),
  "the mean of a seed that is NaN": (
    lambda: statistics.estimate([1.0, NAN]),
    statistics.Estimate(None, None, None, 2, "a value is not finite"),
  ),
  "no seed in common": (
    lambda: moderated.compare({"a": {0: 1.0}, "b": {1: 1.0}}, [("a", "b")]),
    {("a", "b"): moderated.Contrast(None, None, 0.0, 0)},
  ),
  "a difference of infinities": (
    lambda: (
      moderated.compare({"a": {0: INF, 1: 1.0}, "b": {0: 1.0, 1: 1.0}}, [("a", "b")])[
        "a", "b"
      ].p
    ),
    None,
  ),
  "a verdict of NaN": (
    lambda: [
      (x.verdict, x.reason, x.p)
      for x in verdicts.judge({0: NAN_COLUMN}, "a")[0].of.values()
    ],
    [("did not resolve", "one seed", None)],
  ),
}


@pytest.mark.parametrize("name", [*SAID])
def test_what_is_undefined_is_said(name):
  function, answer = SAID[name]
  assert function() == answer


REFUSED = {
  "no tokens": (
    lambda: text_scores.perplexity(1.0, 0),
    "no perplexity; give some text",
  ),
  "no bytes": (lambda: text_scores.bits_per_byte(1.0, 0), "give some text"),
  "no translation": (lambda: text_scores.bleu([], []), "nothing to score"),
  "nothing to be near to": (lambda: text_scores.nearest_targets([], ["a"]), "at least"),
  "temperature 0": (lambda: Sampling(0.0), "or decode greedily"),
  "temperature NaN": (lambda: Sampling(NAN), "or decode greedily"),
  "a temperature that makes infinities": (
    lambda: Sampling(1e-38),
    "write 1e-06 or more",
  ),
  "an infinite temperature": (lambda: Sampling(INF), "or decode greedily"),
  "no direction": (
    lambda: similarity.cosines(np.array([[1.0], [NAN]]), ["a", "b"]),
    "'b' has no direction",
  ),
  "neither lower nor higher": (
    lambda: verdicts.Column({}, "best", []),
    "neither 'lower' nor 'higher'",
  ),
}


@pytest.mark.parametrize("name", [*REFUSED])
def test_what_cannot_be_answered_is_refused(name):
  function, says = REFUSED[name]
  with pytest.raises(ValueError, match=says):
    function()


def test_no_guess_about_labels_that_were_never_trained_on():
  from transformer_jax.data.readers.labelled_text import Example

  one = [Example(("a",), ("x",), "")]
  facts = guesses(one, [Example(("b",), ("y",), "")])
  assert facts == {
    "guess": {"label": "x", "accuracy": 0.0, "lookup": 0.0},
    "unseen": ["y"],
  }


SIZES = Dims(V=4, D=8, H=2, F=8, L=3)
SPECS = {"fixed": "fixed(2)", "strided": "strided(2)", "dilated": "dilated(2, 2)"}


def weighing():
  """Returns the attention variants that weigh scores in a way of their own."""
  found = {}
  for name in attentions:
    try:
      variant = attentions.build(SPECS.get(name, name))
    except (TypeError, ValueError):  # it needs arguments, and these change who is seen
      continue
    own = any(variant.overrides(x) for x in ("weigh", "pointwise", "sink_logit"))
    found |= {name: variant} if own else {}
  return found


@pytest.mark.parametrize("name", [*weighing()])
def test_a_query_that_sees_no_key_has_weights_of_0_and_no_gradient(name):
  variant = weighing()[name]
  params = variant.init(jax.random.key(0), SIZES)
  params |= {n: jnp.ones(shape) for n, (shape, *_) in variant.weights(SIZES).items()}
  mask_BLM = jnp.array([[[True, False, False], [False] * 3, [True] * 3]])
  score_BHLM = jax.random.uniform(jax.random.key(1), (1, 2, 3, 3))

  @jax.jit
  def weigh(params, score_BHLM):
    weight_BHLM = BoundVariant(variant, params).weigh(score_BHLM, mask_BLM)
    return jnp.sum(weight_BHLM**2), weight_BHLM

  gradient = jax.value_and_grad(weigh, (0, 1), has_aux=True)
  (_, weight_BHLM), gradients = gradient(params, score_BHLM)
  assert not weight_BHLM[:, :, 1].any()
  assert weight_BHLM[:, :, 2].any()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
  assert not gradients[1][:, :, 1].any()
