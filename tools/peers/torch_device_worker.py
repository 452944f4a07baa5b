"""PyTorch's attention on a GPU, for `python -m experiments.bench --device`.

Started by path with the Python of --torch_python: no module of this project imports
PyTorch. Without CUDA it computes on the CPU, which is for a rehearsal: FlexAttention
has no gradients there, and only its outputs are computed.
"""

import functools
import importlib.metadata
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments.bench.serve import serve  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUND = 0.05  # seconds of calls in a row, as this project's side
BUCKETS = 32
torch.manual_seed(0)


def attention(kind, encoding, B, L, H, K):
  """Causal attention in bfloat16: output, and gradients of all its inputs.

  kind       flash: FlashAttention by SDPA; flex: FlexAttention, compiled
  encoding   none, alibi or t5, whose table is learned
  B, L       sequences and their tokens
  H, K       heads and their width
  """
  trains = DEVICE == "cuda" or kind == "flash"
  make = functools.partial(torch.randn, B, H, L, K, dtype=torch.bfloat16, device=DEVICE)
  q, k, v = (make(requires_grad=trains) for _ in range(3))
  g = make()
  attend, extra = {"flash": flash, "flex": flex}[kind](encoding, L, H)

  def run():
    torch.autograd.grad(attend(q, k, v), (q, k, v, *extra), g)

  def forward():
    with torch.no_grad():
      attend(q, k, v)

  call, facts = repeated(run if trains else forward)
  flops = 7 * 2 * B * H * K * L * L / 2
  return call, facts | {"flops": flops}


def flash(encoding, L, H):
  """PyTorch's scaled dot products by the kernel of FlashAttention."""
  from torch.nn.attention import SDPBackend, sdpa_kernel

  assert encoding == "none", "FlashAttention takes no bias"
  fused = SDPBackend.FLASH_ATTENTION if DEVICE == "cuda" else SDPBackend.MATH

  def attend(q, k, v):
    with sdpa_kernel(fused):
      return F.scaled_dot_product_attention(q, k, v, is_causal=True)

  return attend, ()


def flex(encoding, L, H):
  """FlexAttention, compiled, with the encoding as its score_mod."""
  from torch.nn.attention.flex_attention import create_block_mask, flex_attention

  def causal(b, h, i, j):
    return i >= j

  blocks = create_block_mask(causal, None, None, L, L, device=DEVICE)
  score_mod, extra = SCORES[encoding](L, H)
  call = torch.compile(flex_attention) if DEVICE == "cuda" else flex_attention
  return functools.partial(call, score_mod=score_mod, block_mask=blocks), extra


def alibi(L, H):
  """ALiBi's slopes, which are no parameters."""
  slopes = torch.tensor([2 ** (-8 * (n + 1) / H) for n in range(H)], device=DEVICE)

  def score_mod(score, b, h, i, j):
    """Returns a score with its bias.

    score   of a query and a key
    b, h    indices of the sequence and the head
    i, j    indices of the query and the key
    """
    return score - slopes[h] * (i - j)

  return score_mod, ()


def t5(L, H):
  """T5's table of buckets by heads, which gets its gradient."""
  table = torch.randn(BUCKETS, H, device=DEVICE, requires_grad=True)
  far = torch.arange(L, device=DEVICE)
  exact = BUCKETS // 2
  ratio = torch.log(far.clamp(min=1) / exact) / math.log(128 / exact)
  large = (exact + (ratio * exact).long()).clamp(max=BUCKETS - 1)
  bucket = torch.where(far < exact, far, large)

  def score_mod(score, b, h, i, j):
    """Returns a score with its bias; arguments as in `alibi`."""
    return score + table[bucket[(i - j).clamp(min=0)], h]

  return score_mod, (table,)


SCORES = {"none": lambda L, H: (None, ()), "alibi": alibi, "t5": t5}


def repeated(run):
  """Returns a call that repeats `run` for a while, and its facts."""
  run()  # compiles
  before = reset()
  once = seconds(run)
  facts = {}
  if DEVICE == "cuda":
    facts["temporary_bytes"] = torch.cuda.max_memory_allocated() - before
    facts["output_bytes"] = 0  # they are in the former
  calls = max(1, min(100, math.ceil(ROUND / once)))

  def several():
    for _ in range(calls):
      run()
    synchronize()

  return several, facts | {"calls": calls}


def reset():
  """Forgets the highest use of memory; returns the present one."""
  if DEVICE == "cpu":
    return 0
  torch.cuda.reset_peak_memory_stats()
  return torch.cuda.memory_allocated()


def seconds(run):
  synchronize()
  start = time.perf_counter()
  run()
  synchronize()
  return time.perf_counter() - start


def synchronize():
  if DEVICE == "cuda":
    torch.cuda.synchronize()


def versions():
  """Returns versions of PyTorch's side, and its device."""
  name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
  return {"torch": importlib.metadata.version("torch"), "device": name}


if __name__ == "__main__":
  serve({"attention": attention}, versions)
