"""Optax's optimizers by name: their arguments are read from their signatures."""

import dataclasses
import inspect
from typing import Any, ClassVar

import optax
from optax import contrib

from transformer_jax.training.optimizers.base import Optimizer, optimizers
from transformer_jax.training.optimizers.each_layer import each_layer
from transformer_jax.training.optimizers.matrices import matrices

ARXIV = "https://arxiv.org/abs/"
# {name: paper}. Not here: those that need the loss or the Hessian (lbfgs, momo, sophia,
# sam), no schedule (rprop, sm3), other parameters in evaluation (schedule_free_*), or
# a key (noisy_sgd, dpsgd).
PAPERS = {
  "acprop": "2110.05454",
  "adabelief": "2010.07468",
  "adadelta": "1212.5701",
  "adafactor": "1804.04235",
  "adagrad": "",
  "adamax": "1412.6980",
  "adamaxw": "1412.6980",
  "adan": "2208.06677",
  "ademamix": "2409.03137",
  "adopt": "2411.02853",
  "amsgrad": "1904.09237",
  "cocob": "1705.07795",
  "dadapt_adamw": "2301.07733",
  "dog": "2302.12022",
  "dowg": "2305.16284",
  "fromage": "2002.03432",
  "lamb": "1904.00962",
  "lars": "1708.03888",
  "lion": "2302.06675",
  "madgrad": "2101.11075",
  "nadam": "",
  "nadamw": "",
  "novograd": "1905.11286",
  "prodigy": "2306.06101",
  "radam": "1908.03265",
  "rmsprop": "",
  "sgd": "",
  "sign_sgd": "1802.04434",
  "signum": "1802.04434",
  "simplified_ademamix": "2502.02431",
  "yogi": "",
}
# They read each array as a whole.
OF_ARRAYS = {"adafactor", "fromage", "lamb", "lars", "novograd"}
MASKS = {"mask", "weight_decay_mask"}  # weight decay is of matrices alone
LEFT_OUT = {"dtype_momentum", "mu_dtype", "accumulator_dtype", "trust_ratio_mask"}
RATE = "learning_rate"
DEFAULT_RATE = 1e-3


class OptaxOptimizer(Optimizer):
  """An optimizer of Optax with its own arguments, but for `lr`, its learning rate.

  Weight decay is of matrices and tables alone, as in `adamw`.

  >>> optimizers.build("lion(lr=1e-4, b1=0.95)").weight_decay  # Optax's default
  0.001
  >>> try:
  ...   optimizers.build("lion(beta1=0.9)")
  ... except ValueError as error:
  ...   print(str(error).split(" It ")[0])
  optimizer 'lion(beta1=0.9)' has no argument 'beta1'. Did you mean 'b1'?
  """

  name: ClassVar[str]

  def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    function = _function(self.name)
    arguments = dict(vars(self))
    del arguments["lr"]
    masks = MASKS & {*inspect.signature(function).parameters}
    arguments |= dict.fromkeys(masks, matrices)
    made = function(schedule, **arguments)
    return each_layer(made) if self.name in OF_ARRAYS else made


def _function(name: str) -> Any:
  """Returns the function of Optax that makes an optimizer."""
  return getattr(optax, name, None) or getattr(contrib, name)


def _field(name: str, argument: inspect.Parameter) -> tuple[str, Any, Any] | None:
  """Returns (name, type, default) of an argument that a spec can say, else None."""
  default = argument.default
  if name in MASKS | LEFT_OUT or callable(default):
    return None
  if default is None:
    return name, float | None, None
  if isinstance(default, tuple):
    numbers = all(isinstance(x, float) for x in default)
    kinds = tuple.__class_getitem__((float,) * len(default))
    return (name, kinds, default) if numbers else None
  whole = argument.annotation is int
  kind = bool if isinstance(default, bool) else int if whole else float
  return name, kind, default


def _optimizer(name: str, paper: str) -> type[OptaxOptimizer]:
  """Returns a class with the arguments of a function of Optax."""
  parameters = inspect.signature(_function(name)).parameters
  rate = parameters[RATE].default
  rate = rate if isinstance(rate, float) else DEFAULT_RATE
  given = (_field(n, x) for n, x in parameters.items() if n != RATE)
  fields = [("lr", float, rate), *(each for each in given if each)]
  source = f" {ARXIV}{paper}" if paper else ""
  namespace = {"name": name, "__doc__": f"Optax's `{name}`.{source}"}
  title = "Optax" + name.title().replace("_", "")
  return dataclasses.make_dataclass(
    title,
    fields,
    bases=(OptaxOptimizer,),
    namespace=namespace | {"__module__": __name__},
    frozen=True,
  )


for _name, _paper in PAPERS.items():
  optimizers.register(_name)(_optimizer(_name, _paper))
