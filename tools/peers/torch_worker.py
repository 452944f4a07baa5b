"""Other people's attention and models on PyTorch, for `python -m experiments.bench`.

Runs in an environment of its own (requirements-peers.txt) and is started by path: no
module of this project imports PyTorch. Each case makes its inputs first; what it
returns is what is timed.
"""

import functools
import importlib.metadata
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments.bench.serve import serve  # noqa: E402

torch.manual_seed(0)


# ------------------------------------------------------------------- attention


def attention(kind, L, H=8, K=64, backward=True):
  """One causal sequence in float32. The output's gradient is a fixed random array.

  kind       key of KINDS
  L, H, K    length, heads and their width
  backward   also compute gradients
  """
  q, k, v = (torch.randn(1, H, L, K, requires_grad=backward) for _ in range(3))
  g = torch.randn(1, H, L, K)
  attend, extra = KINDS[kind](L, H, backward)
  inputs = [x for x in (q, k, v, *extra) if x.requires_grad]

  def run():
    with torch.set_grad_enabled(backward):
      out = attend(q, k, v)
    if backward:
      torch.autograd.grad(out, inputs, g)

  small = torch.randn(1, H, 16, K)  # loads libraries, which are not the case's memory
  F.scaled_dot_product_attention(small, small, small)
  if kind == "flex":
    run()  # compiles
  return run, {}


def buckets(L):
  """Returns T5's bucket of every pair of a query and an earlier key, [L, L]."""
  far = (torch.arange(L)[:, None] - torch.arange(L)[None]).clamp(min=0)
  large = 16 + (torch.log(far.float().clamp(min=1) / 16) / torch.log(
    torch.tensor(128 / 16.0)) * 16).long()  # fmt: skip
  return torch.where(far < 16, far, large.clamp(max=31))


def bias(L, H, backward):
  """A T5 table spread over all pairs in each call, as a T5 layer does it."""
  table = torch.randn(32, H, requires_grad=backward)
  bucket, future = buckets(L), torch.ones(L, L, dtype=torch.bool).triu(1)

  def attend(q, k, v):
    spread = F.embedding(bucket, table).permute(2, 0, 1)[None]
    mask = spread.masked_fill(future, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

  return attend, (table,)


def fixed_bias(L, H, backward):
  """The same bias, spread once before the clock starts; it gets no gradient."""
  future = torch.ones(L, L, dtype=torch.bool).triu(1)
  spread = torch.randn(32, H)[buckets(L)].permute(2, 0, 1)[None]
  mask = spread.masked_fill(future, -torch.inf).contiguous()
  return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), ()


def causal(L, H, backward):
  """PyTorch's fused kernel, which takes no bias."""
  attend = functools.partial(F.scaled_dot_product_attention, is_causal=True)
  return attend, ()


def flex(L, H, backward):
  """FlexAttention, compiled, with a learned bias per head and bucket."""
  from torch.nn.attention.flex_attention import create_block_mask, flex_attention

  table = torch.randn(32, H, requires_grad=backward)
  distance = buckets(L)[-1].flip(0).contiguous()  # the bucket of distances 0, 1, ...

  def score_mod(score, b, h, i, j):
    """Returns a score with its bias.

    score   of a query and a key
    b, h    indices of the sequence and the head
    i, j    indices of the query and the key
    """
    return score + table[distance[(i - j).clamp(min=0)], h]

  def causal_mask(b, h, i, j):
    return i >= j

  blocks = create_block_mask(causal_mask, None, None, L, L, device="cpu")
  call = torch.compile(flex_attention)
  return lambda q, k, v: call(q, k, v, score_mod=score_mod, block_mask=blocks), (table,)


KINDS = {
  "bias": bias,
  "fixed_bias": fixed_bias,
  "causal": causal,
  "flex": flex,
}


def delta_rule(L, H=8, K=64, backward=True):
  """The gated delta rule in chunks, as transformers computes it without kernels.

  L, H, K    tokens, heads and their width
  backward   also compute gradients
  """
  from transformers.models.qwen3_next import modeling_qwen3_next

  form = modeling_qwen3_next.torch_chunk_gated_delta_rule
  q, k, v = (torch.randn(1, L, H, K) for _ in range(3))
  q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
  decay = -0.1 * F.softplus(torch.randn(1, L, H))
  inputs = [q, k, v, decay, torch.sigmoid(torch.randn(1, L, H))]
  g = torch.randn(1, L, H, K)
  for x in inputs:
    x.requires_grad_(backward)

  def run():
    with torch.set_grad_enabled(backward):
      out, _ = form(*inputs)
    if backward:
      torch.autograd.grad(out, inputs, g)

  return run, {}


# --------------------------------------------------------------------- training


def step(kind, B, L, V=8192, D=256, H=8, N=6, dtype="float32"):
  """One step of a decoder on random tokens: loss, gradients, AdamW.

  kind         key of MODELS
  B, L         sequences in the batch and their tokens
  V, D, H, N   vocabulary, width, heads and layers
  dtype        float32, or bfloat16 by autocast
  """
  logits = MODELS[kind](V, D, H, N, L)
  logits.train()
  optimizer = torch.optim.AdamW(logits.parameters(), lr=1e-3, fused=True)
  tokens = torch.randint(0, V, (B, L + 1))
  read, target = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
  halves = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

  def run():
    with halves:
      out = logits(read)
      loss = F.cross_entropy(out.reshape(-1, V).float(), target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss

  first = run().item()
  size = sum(x.numel() for x in logits.parameters())
  return run, {"parameters": size, "loss": first}


class Logits(torch.nn.Module):
  """Takes the logits out of what a model of transformers returns."""

  def __init__(self, model):
    super().__init__()
    self.model = model

  def forward(self, tokens):
    return self.model(tokens, use_cache=False).logits


def x_transformers(V, D, H, N, L, **options):
  """Returns a decoder of x-transformers.

  V, D, H, N   vocabulary, width, heads and layers
  L            most tokens
  options      of its `Decoder`
  """
  from x_transformers import Decoder, TransformerWrapper

  layers = Decoder(dim=D, depth=N, heads=H, attn_dim_head=D // H, **options)
  return TransformerWrapper(
    num_tokens=V,
    max_seq_len=L,
    attn_layers=layers,
    tie_embedding=True,
    use_abs_pos_emb=not options.get("rel_pos_bias") and "alibi_pos_bias" not in options,
  )


def gpt2(V, D, H, N, L):
  """Returns GPT-2 of transformers.

  V, D, H, N   vocabulary, width, heads and layers
  L            most tokens
  """
  from transformers import GPT2Config, GPT2LMHeadModel

  config = GPT2Config(
    vocab_size=V, n_positions=L, n_embd=D, n_layer=N, n_head=H,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    bos_token_id=None, eos_token_id=None,
  )  # fmt: skip
  return Logits(GPT2LMHeadModel(config))


def t5(V, D, H, N, L):
  """Returns T5's decoder.

  V, D, H, N   vocabulary, width, heads and layers
  L            unused: its bias has no length
  """
  return T5Decoder(V, D, H, N)


class T5Decoder(torch.nn.Module):
  """T5's decoder by itself: its layers that look at an encoder are taken out."""

  def __init__(self, V, D, H, N):
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    super().__init__()
    config = T5Config(
      vocab_size=V, d_model=D, d_kv=D // H, d_ff=4 * D, num_layers=N, num_heads=H,
      dropout_rate=0.0, is_decoder=True, use_cache=False, is_encoder_decoder=False,
    )  # fmt: skip
    self.embedding = torch.nn.Embedding(V, D)
    self.stack = T5Stack(config)
    self.stack.embed_tokens = None
    self.scale = D**-0.5
    for block in self.stack.block:
      block.layer[1] = torch.nn.Identity()

  def forward(self, tokens):
    x = self.stack(inputs_embeds=self.embedding(tokens)).last_hidden_state
    return F.linear(x * self.scale, self.embedding.weight)


MODELS = {
  "x_transformers": functools.partial(x_transformers, attn_flash=True),
  # Its T5 bias and its SDPA refuse each other.
  "x_transformers_t5": functools.partial(x_transformers, rel_pos_bias=True),
  "x_transformers_alibi": functools.partial(
    x_transformers, alibi_pos_bias=True, attn_flash=True
  ),
  "hf_gpt2": gpt2,
  "hf_t5": t5,
}


# --------------------------------------------------------------------- decoding


def generate(B, prompt, new, V=8192, D=256, H=8, N=6):
  """Greedy decoding with the cache by GPT-2's `generate`.

  B            sequences
  prompt       tokens of each prompt
  new          tokens that are generated after it
  V, D, H, N   vocabulary, width, heads and layers
  """
  model = gpt2(V, D, H, N, prompt + new).model.eval()
  tokens = torch.randint(0, V, (B, prompt))
  mask = torch.ones_like(tokens)

  @torch.inference_mode()
  def run():
    out = model.generate(
      tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    assert out.shape == (B, prompt + new)

  run()
  return run, {"parameters": sum(x.numel() for x in model.parameters())}


def versions():
  names = ("torch", "transformers", "x-transformers")
  return {name: importlib.metadata.version(name) for name in names}


if __name__ == "__main__":
  cases = {
    "attention": attention,
    "delta_rule": delta_rule,
    "step": step,
    "generate": generate,
  }
  serve(cases, versions)
