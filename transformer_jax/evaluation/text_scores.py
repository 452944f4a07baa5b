"""BLEU and chrF by sacreBLEU, with signatures and trivial baselines.

Post, 2018, https://aclanthology.org/W18-6319; Papineni et al., 2002 (BLEU),
https://aclanthology.org/P02-1040; Popović, 2015 (chrF),
https://aclanthology.org/W15-3049.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
import sacrebleu
from scipy import sparse

from transformer_jax.data import languages

WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True)
class CorpusScore:
  """A score from 0 to 100 and the signature that makes it comparable.

  margin   half of the 95% interval over resampled sentences; None: not resampled, or
           nearly nothing is right

  >>> score = bleu(["the cat sat on the mat"], ["the cat sat on the mat"])
  >>> str(score)
  'BLEU 100.0'
  """

  name: str
  value: float
  signature: str
  margin: float | None = None

  def __str__(self) -> str:
    margin = "" if self.margin is None else f" ± {self.margin:.1f}"
    return f"{self.name} {self.value:.1f}{margin}"


def bleu(
  hypotheses: Sequence[str], *references: Sequence[str], resamples: int = 0, **settings
) -> CorpusScore:
  """Returns BLEU of translations; each list of references has one for each of them.

  settings   of `sacrebleu.BLEU`, such as tokenize, lowercase or smooth_method
  """
  return _score("BLEU", sacrebleu.BLEU(**settings), hypotheses, references, resamples)


def chrf(
  hypotheses: Sequence[str], *references: Sequence[str], resamples: int = 0, **settings
) -> CorpusScore:
  """Returns chrF of translations; with word_order=2 it is chrF++."""
  metric = sacrebleu.CHRF(**settings)
  name = "chrF" + "+" * metric.word_order
  return _score(name, metric, hypotheses, references, resamples)


def _score(name, metric, hypotheses, references, resamples) -> CorpusScore:
  """Returns sacreBLEU's score; interval by Koehn, 2004, aclanthology.org/W04-3250.

  name         shown with the score
  metric       a metric of sacreBLEU
  hypotheses   translations
  references   lists with one reference for each translation
  resamples    number of bootstrap resamples; 0: no interval
  """
  if not hypotheses or not references:
    raise ValueError("nothing to score; give at least one translation and a reference")
  for texts in references:
    if isinstance(texts, str) or len(texts) != len(hypotheses):
      raise ValueError(
        f"{len(hypotheses)} translations and {len(texts)} references; give a list with"
        " one for each translation"
      )
  more = {"n_bootstrap": resamples} if resamples else {}
  hypotheses, references = list(hypotheses), [list(texts) for texts in references]
  try:
    got = metric.corpus_score(hypotheses, references, **more)
  except TypeError:  # sacreBLEU 2.6 cannot average resamples if some score 0
    got, resamples = metric.corpus_score(hypotheses, references), 0
  # sacreBLEU puts the mean and the interval of resamples beside the score.
  margin = got._ci if resamples else None
  return CorpusScore(name, got.score, str(metric.get_signature()), margin)


def nearest_targets(
  train: Sequence[tuple[str, str]], sources: Sequence[str]
) -> list[str]:
  """Returns, for each source, the target of the training source nearest to it.

  Similarity is the cosine of word sets with inverse document frequency: a word in n of
  N training sources weighs log(N / n). A translation memory does this; a score below it
  shows no translation. A source without any known word gets "".
  """
  if not train:
    raise ValueError("no training pairs to look for the nearest in; give at least one")
  index: dict[str, int] = {}
  texts = [{*words(source)} for source, _ in train]
  for text in texts:
    for word in sorted(text):
      index.setdefault(word, len(index))
  train_TN = _table(texts, index)
  count_N = np.bincount(train_TN.indices, minlength=len(index))
  weight_NN = sparse.diags(np.log(len(train) / np.maximum(count_N, 1)))
  train_TN = _unit(train_TN @ weight_NN)
  source_TN = _table([{*words(source)} for source in sources], index) @ weight_NN
  near = []
  for start in range(0, len(sources), 256):  # a piece of the products at a time
    products = (source_TN[start : start + 256] @ train_TN.T).toarray()
    nearest = np.where(products.any(axis=1), products.argmax(axis=1), -1)
    near += nearest.tolist()
  return [train[n][1] if n >= 0 else "" for n in near]


def words(text: str) -> list[str]:
  """Returns the words of a text; each character is one in scripts without spaces."""
  return WORD.findall(languages.SPACELESS.sub(r" \g<0> ", text.lower()))


def _table(texts: Sequence[set[str]], index: dict[str, int]) -> sparse.csr_matrix:
  """Returns 1 where a text has a word of the index, [texts, words]."""
  places = [sorted(index[w] for w in words if w in index) for words in texts]
  ends = np.cumsum([0, *map(len, places)])
  flat = np.array([n for own in places for n in own], np.int64)
  shape = len(texts), len(index)
  return sparse.csr_matrix((np.ones(len(flat)), flat, ends), shape)


def _unit(table: sparse.csr_matrix) -> sparse.csr_matrix:
  """Returns rows scaled to length 1; empty rows stay empty."""
  length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
  return sparse.diags(1 / np.maximum(length, 1e-9)) @ table


def scores(
  hypotheses: Sequence[str],
  references: Sequence[str],
  resamples: int = 0,
  tokenizer: str = "",
) -> tuple[CorpusScore, CorpusScore]:
  """Returns BLEU and chrF.

  tokenizer   sacreBLEU's; "": chosen by the script of the references
  """
  tokenizer = tokenizer or languages.bleu_tokenizer("", references)
  return (
    bleu(hypotheses, references, resamples=resamples, tokenize=tokenizer),
    chrf(hypotheses, references, resamples=resamples),
  )


def bits_per_byte(nats: float, size: int) -> float:
  """Returns bits per byte, from the nats of a whole text and its bytes.

  Unlike perplexity, it compares models with different tokenizers.
  """
  if size < 1:
    raise ValueError(f"a text of {size} bytes has no bits per byte; give some text")
  return nats / (size * math.log(2))


def perplexity(nats: float, tokens: int) -> float:
  """Returns exp(nats / tokens); infinite if that overflows a float."""
  if tokens < 1:
    raise ValueError(f"a text of {tokens} tokens has no perplexity; give some text")
  mean = nats / tokens
  return math.inf if mean >= 700 else math.exp(mean)
