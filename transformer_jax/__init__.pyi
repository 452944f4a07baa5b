"""Types of the names that `transformer_jax` imports when they are first used."""

from transformer_jax import attention as attention
from transformer_jax import data as data
from transformer_jax import evaluation as evaluation
from transformer_jax import interop as interop
from transformer_jax import models as models
from transformer_jax import positions as positions
from transformer_jax import training as training
from transformer_jax.attention import Core as Core
from transformer_jax.attention import Variant as Variant
from transformer_jax.attention import attentions as attentions
from transformer_jax.attention.cores import cores as cores
from transformer_jax.axes import Dims as Dims
from transformer_jax.data.base import Task as Task
from transformer_jax.data.base import tasks as tasks
from transformer_jax.evaluation.decode import greedy as greedy
from transformer_jax.evaluation.decode import sample as sample
from transformer_jax.models import Architecture as Architecture
from transformer_jax.models import Transformer as Transformer
from transformer_jax.models import empty_cache as empty_cache
from transformer_jax.positions import Coords as Coords
from transformer_jax.positions import PositionalEncoding as PositionalEncoding
from transformer_jax.spec import SpecError as SpecError

load_pretrained = interop.load
save_pretrained = interop.save
__version__: str
__all__: list[str]
