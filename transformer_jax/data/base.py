"""Base class of tasks, their batches, and the registry of tasks."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.token_labels import TokenLabel
from transformer_jax.data.tokenizers import Tokenizer
from transformer_jax.positions.coords import Coords
from transformer_jax.spec import Registry, nearest


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """Model inputs, targets, loss weights and coordinates of one batch.

  input_BL   int32 tokens; or images, float32 [B, channels, rows, columns], or a series
             of numbers, float32 [B, L, features]
  target_BL  int32, the target token of each place; or numbers, float32 [B, L, N]
  weight_BL  float32, 1 where the prediction counts and 0 elsewhere
  at         coordinates of the tokens; its batch axis may be 1
  source_BL  int32 tokens of an encoder's source, of a separate length, or None
  source_at  coordinates of the source

  >>> from transformer_jax.positions import coords
  >>> token_BL = jnp.array([[1, 2, 3, 4]])
  >>> weight_BL = jnp.ones((1, 3))
  >>> at = coords.consecutive(1, 3)
  >>> Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL, at).tokens
  3
  """

  input_BL: jax.Array
  target_BL: jax.Array
  weight_BL: jax.Array
  at: Coords
  source_BL: jax.Array | None = None
  source_at: Coords | None = None

  @property
  def reads(self) -> tuple[jax.Array, Coords, jax.Array | None, Coords | None]:
    """Model inputs, in the order of the model's arguments."""
    return self.input_BL, self.at, self.source_BL, self.source_at

  @property
  def tokens(self) -> int:
    """Number of input tokens, the source's included; patches are tokens."""
    return self.weight_BL.size + (0 if self.source_BL is None else self.source_BL.size)

  def last_targets(self, last: int | None) -> "Batch":
    """Returns the batch with the targets of its last places alone; None: with all."""
    if last is None:
      return self
    target_BL, weight_BL = self.target_BL[:, -last:], self.weight_BL[:, -last:]
    return dataclasses.replace(self, target_BL=target_BL, weight_BL=weight_BL)

  def texts(self, start: int, stop: int | None = None) -> "Batch":
    """Returns some texts, from `start` up to `stop`; shared coordinates stay whole."""
    B = len(self.input_BL)
    return jax.tree.map(lambda x: x[start:stop] if len(x) == B else x, self)


@dataclasses.dataclass(frozen=True, eq=False)
class GenerationSet:
  """Sources to generate from, with references to score against.

  sources      input texts
  references   human output text of each source
  examples     (source, target) of the training split
  tokenizer    of the model
  bleu         sacreBLEU tokenizer

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> texts = {"sources": ["ein Hund", "ja"], "references": ["a dog", "yes"]}
  >>> some = GenerationSet(**texts, examples=[], tokenizer=tokenizers.build("byte"))
  >>> some.first(1).references
  ['a dog']
  """

  sources: list[str]
  references: list[str]
  examples: list[tuple[str, str]]
  tokenizer: Tokenizer
  bleu: str = "13a"

  def first(self, n: int) -> "GenerationSet":
    """Returns the set of the first n texts."""
    return self.at(range(min(n, len(self.sources))))

  def at(self, places: Sequence[int]) -> "GenerationSet":
    """Returns the set of the texts at some places."""
    sources, references = (
      [texts[n] for n in places] for texts in (self.sources, self.references)
    )
    return dataclasses.replace(self, sources=sources, references=references)


class TaskData(tuple[Any, dict[str, Any]]):
  """Result of `Task.load`; unpacks as `arrays, facts`.

  arrays   tree of arrays that batches are cut from
  facts    counts and fingerprints to record with a run
  fitted   tokenizer, labels, ... fitted to the training data, which `Task.keep` saves
           and `Task.generation_set` uses; None: nothing is fitted

  >>> data = TaskData({}, {"bytes": 3}, fitted="a tokenizer")
  >>> arrays, facts = data
  >>> facts, data.fitted
  ({'bytes': 3}, 'a tokenizer')
  """

  fitted: Any

  def __new__(
    cls, arrays: Any, facts: dict[str, Any], fitted: Any = None
  ) -> "TaskData":
    self = super().__new__(cls, (arrays, facts))
    self.fitted = fitted
    return self

  @classmethod
  def of(cls, task: "Task") -> "TaskData":
    """Returns a task's data; `load` may also return a plain pair (arrays, facts).

    Raises DataError if it returns anything else.
    """
    loaded: Any = task.load()
    if isinstance(loaded, TaskData):
      return loaded
    if not (isinstance(loaded, tuple) and len(loaded) == 2):
      raise DataError(
        f"{type(task).__name__}.load returns a {type(loaded).__name__}; return"
        " TaskData(arrays, facts, fitted), or (arrays, facts)"
      )
    return cls(*loaded)


def check_split(task: str, split: str) -> None:
  """Raises DataError unless the split can be scored."""
  if split not in SPLITS[1:]:
    raise DataError(
      f"{task}: split '{split}' cannot be scored.{nearest(split, SPLITS[1:])} Choose"
      " validation or test."
    )


def check_sizes(task: str, least: int = 1, **sizes: int | None) -> None:
  """Raises DataError unless each of the sizes is at least this, or None."""
  for name, size in sizes.items():
    if size is not None and size < least:
      raise DataError(f"{task}: {name} is {size}; it must be at least {least}")


def note(facts: dict[str, Any], *sentences: str) -> None:
  """Adds notes on the data for the user; the runner prints them."""
  if sentences:
    facts["notes"] = [*facts.get("notes", ()), *sentences]


def shape(*sizes: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
  """Returns the shape and type of an abstract array, int32 by default."""
  return jax.ShapeDtypeStruct(sizes, dtype)


class Task:
  """Base class of tasks: batches, pure in the key. Subclasses are frozen dataclasses.

  vocabulary  the number of tokens
  kind        kind of model: decoder, prefix_decoder, encoder or encoder_decoder; the
              last one needs batches with a source
  classes     number of classes of a prediction; None: tokens are predicted
  target_numbers  how many numbers a place predicts, N; None: a token, or a class
  target_kind  what these are where options tell, such as values or differences: a model
              that predicts one is not scored on the other
  objective   what training minimizes: a name of `training.objectives`, or an Objective
              of your own
  whole       whether a target belongs to the whole text, not to one of its tokens
  measures    metrics of evaluation, the headline first
  length_name what a length is, for figures
  streamed    name of the array that may stay on the host, read window by window by
              `data.windows`; None: none may
  generation  how what a model makes of the `generation_set` is scored: a name of
              `evaluation.task_evaluations`, or a TaskEvaluation of your own

  >>> import functools
  >>> import jax
  >>> from transformer_jax.data.base import tasks
  >>> task = tasks.build("copy(symbols=2)")
  >>> task.vocabulary, task.tokens(3)
  (6, 8)
  >>> draw = functools.partial(task.batch, (), batch_size=4, length=3)
  >>> batch = jax.eval_shape(draw, jax.random.key(0))
  >>> batch.input_BL.shape, batch.weight_BL.shape
  ((4, 8), (4, 8))
  """

  whole: ClassVar[bool] = False
  streamed: ClassVar[str | None] = None
  generation: ClassVar[Any] = "texts"
  if TYPE_CHECKING:  # a subclass declares each as a constant, a field or a property

    @property
    def vocabulary(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def measures(self) -> tuple[str, ...]: ...
    @property
    def target_numbers(self) -> int | None: ...
    @property
    def target_kind(self) -> str: ...
    @property
    def length_name(self) -> str: ...
    @property
    def objective(self) -> Any: ...
  else:
    vocabulary: ClassVar[int]
    kind: ClassVar[str] = "decoder"
    classes: ClassVar[int | None] = None
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "exact_match")
    target_numbers: ClassVar[int | None] = None
    target_kind: ClassVar[str] = ""
    length_name: ClassVar[str] = "context length"
    objective: ClassVar[Any] = "cross_entropy"

  def tokens(self, length: int) -> int:
    """Returns the number of input tokens at a task length.

    With a source: of the longer side, since positions must reach that far.
    """
    raise NotImplementedError

  def example(self, length: int) -> jax.Array:
    """Returns a dummy input [1, ...], from which a model is initialized."""
    return jnp.zeros((1, self.tokens(length)), jnp.int32)

  def load(self) -> TaskData:
    """Returns the arrays that batches are cut from, with facts to record.

    A task that fits nothing to its data may return a plain pair (arrays, facts).
    """
    return TaskData((), {})

  def abstract(self) -> Any:
    """Returns the shapes of the arrays of `load`, for costs without data.

    Sizes of data sets are placeholders; no cost depends on them.
    """
    return ()

  def keep(self, folder: pathlib.Path, fitted: Any) -> None:
    """Saves fitted data, such as a vocabulary, in a run's folder.

    fitted   `TaskData.fitted` of this task

    Raises DataError when the folder holds another one.
    """

  def check(self, arrays: Any, length: int) -> None:
    """Raises DataError if no training batch of this length would have a target."""

  def target_places(self, bucket: int) -> int | None:
    """Returns how many of the last places may have weight in `score`; None: any may.

    Of the places before these a model need not compute its last layer and its logits.

    bucket   the task length that sets the shapes
    """
    return None

  def available(self, arrays: Any) -> int | None:
    """Returns the number of examples of the scored split; None: any number is drawn.

    arrays   `TaskData.arrays` of `load`
    """
    return None

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing, a line in the report's figures; None: unknown.

    measure   name in results, such as "accuracy"
    length    task length
    """
    return None

  def generation_set(self, fitted: Any) -> Any:
    """Returns what a trained model is to make, or None: it makes nothing.

    A GenerationSet of texts, or what the evaluation named by `generation` reads.

    fitted   `TaskData.fitted` of this task
    """
    return None

  def probe_labels(self) -> dict[str, TokenLabel]:
    """Returns labels of tokens that a solution may compute, by name; {}: none.

    Probes look for them in hidden states: the depth of brackets, the carry, the state
    of an automaton.
    """
    return {}

  def at_step(self, arrays: Any, key: jax.Array, step: jax.Array) -> Any:
    """Returns the arrays of one training step, for batches in the order of the steps.

    arrays   `TaskData.arrays` of `load`
    key      of the seed; the key of a batch is folded from it and the step
    step     number of steps taken
    """
    return arrays

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns a training batch: a pure function of the key and of `progress`.

    arrays       `TaskData.arrays` of `load`
    key          chooses the examples
    batch_size   rows, B
    length       task length, a Python number; `tokens(length)` tokens are read
    progress     share of the training steps that is over, 0 to 1, for curricula
    """
    raise NotImplementedError

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns an evaluation batch of `length`, padded on the left to `bucket`.

    arrays       `TaskData.arrays` of `load`
    key          chooses the examples
    batch_size   the most rows, B
    length       task length; may be traced: one program serves all up to the bucket
    bucket       the task length that sets the shapes, a Python number

    Examples differ: all of them, or `batch_size` of more. With fewer, the batch is
    smaller or has rows of weight 0; the mean is taken over the others.
    Coordinates shared by all rows have a batch axis of 1, else of B.
    """
    raise NotImplementedError


def target_places(task: Task, bucket: int) -> int | None:
  """Returns how many of the last places may have weight in a task's scored batches.

  None: any may. So it is where a subclass has a `score` of its own and says no more.

  bucket   the task length that sets the shapes

  >>> target_places(tasks.build("copy(symbols=2, scored=3)"), 8)
  4
  """

  def definer(name: str) -> type:
    return next(kind for kind in type(task).__mro__ if name in vars(kind))

  if not issubclass(definer("target_places"), definer("score")):
    return None
  return task.target_places(bucket)


def check_fitted(task: Task, fitted: Any, kind: type) -> None:
  """Raises DataError unless `fitted` has the type that the task's `load` returns."""
  if not isinstance(fitted, kind):
    name = type(task).__name__
    raise DataError(
      f"{name}: a {kind.__name__} was expected from load and there is"
      f" {type(fitted).__name__}; end {name}.load with return TaskData(arrays, facts,"
      " fitted), fitted being that of the load it extends"
    )


MANY = 1 << 20  # tokens, or examples, of data of unknown size

tasks = Registry("task", Task)
