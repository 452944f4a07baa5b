"""Tokenizers of others: the tokens of transformers' fast tokenizers, as recorded."""

import json
import pathlib
import sys

import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import load, tokenizers

PATH = pathlib.Path(__file__).parents[2] / "third_party/tokenizers/huggingface.json"
RECORDED = json.loads(PATH.read_text())
CASES = RECORDED["cases"]
TEXTS = RECORDED["texts"]
NAMES = "tokenizer.json", "tokenizer_config.json"


def written(folder, case):
  """Writes the files as transformers wrote them."""
  folder.mkdir(exist_ok=True)
  for name in NAMES:
    (folder / name).write_text(json.dumps(CASES[case][name]), encoding="utf-8")
  return folder


def build(path, fields=""):
  return tokenizers.build(f"huggingface({str(path)!r}{fields})")


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize("case", sorted(CASES))
def test_texts_have_the_recorded_tokens(tmp_path, case):
  tokenizer = build(written(tmp_path, case)).train(["no matter"])
  for text, tokens, shown in zip(
    TEXTS, CASES[case]["tokens"], CASES[case]["decoded"], strict=True
  ):
    assert tokenizer.encode(text) == tokens, text
    assert tokenizer.decode(tokens) == shown, text
  assert tokenizer.vocabulary == CASES[case]["size"] == len(tokenizer.pieces)


@pytest.mark.parametrize("case", sorted(CASES))
def test_no_text_spells_a_special_token(tmp_path, case):
  tokenizer, said = build(written(tmp_path, case)).train(), CASES[case]["special"]
  special = {said[role] for role in said if said[role] not in (None, said["unk"])}
  for text, tokens in zip(RECORDED["spelled"], CASES[case]["split"], strict=True):
    found = tokenizer.encode(text)
    assert special.isdisjoint(found)
    assert found == [said["unk"] if n in special else n for n in tokens]
  assert tokenizer.decode([*special, *tokenizer.encode("the")]).strip() == "the"


def test_tokens_that_begin_and_end_a_text_are_those_of_the_folder(tmp_path):
  for case in ("bert", "llama", "gpt2", "roberta"):
    said, found = CASES[case]["special"], build(written(tmp_path / case, case))
    start, end = (said["cls"], said["bos"]), (said["sep"], said["eos"])
    assert found.start == next(n for n in start if n is not None)
    assert found.end == next(n for n in end if n is not None)
  assert build(tmp_path / "roberta").mask == CASES["roberta"]["special"]["mask"]
  # Without its config, by usual names.
  (tmp_path / "bert" / NAMES[1]).unlink()
  found = build(tmp_path / "bert" / NAMES[0])
  assert [
    found.pieces or found.train().pieces[n] for n in (found.start, found.end)
  ] == [
    "[CLS]",
    "[SEP]",
  ]
  t5 = build(written(tmp_path / "t5", "t5"))
  assert t5.end == 1 and "has no bos_token" in refusal(lambda: t5.start)
  assert build(tmp_path / "t5", ", bos_token='<pad>'").start == 0
  wrong = build(tmp_path / "t5", ", bos_token='<go>'")
  assert "has no token '<go>'" in refusal(lambda: wrong.start)
  assert "has 0 sentinels" in refusal(lambda: t5.sentinel(0))


@pytest.mark.parametrize("case", ["bert", "t5"])
def test_a_run_keeps_the_tokenizer_without_the_folder(tmp_path, case):
  tokenizer = build(written(tmp_path / "there", case), ", mask_token='<x>'").train()
  tokenizer.save(tmp_path / "run" / "tokenizer")
  for name in NAMES:
    (tmp_path / "there" / name).unlink()
  found = load(tmp_path / "run" / "tokenizer")
  assert found.fingerprint == tokenizer.fingerprint and found.end == tokenizer.end
  assert found.encode(TEXTS[0]) == CASES[case]["tokens"][0]
  kept = tokenizers.build(f"kept({str(tmp_path / 'run')!r})")
  assert kept.train().encode(TEXTS[1]) == CASES[case]["tokens"][1]
  copy = tmp_path / "run" / "tokenizer" / "huggingface.json"
  copy.write_text(copy.read_text() + " ")
  assert "was changed" in refusal(lambda: load(tmp_path / "run" / "tokenizer"))


def test_the_fingerprint_is_that_of_all_that_makes_tokens(tmp_path):
  folder = written(tmp_path / "a", "bert")
  marks = [build(folder).train().fingerprint]
  for key, value in (("padding", None), ("normalizer", None)):
    said = json.loads((folder / NAMES[0]).read_text()) | {key: value}
    folder = tmp_path / key
    folder.mkdir()
    (folder / NAMES[0]).write_text(json.dumps(said))
    marks.append(build(folder).train().fingerprint)
  assert marks[0] == marks[1] != marks[2]


def test_a_model_may_have_room_for_more(tmp_path):
  folder = written(tmp_path, "t5")
  assert build(folder, ", size=128").vocabulary == 128
  assert "write size=92 or more" in refusal(
    lambda: build(folder, ", size=9").vocabulary
  )
  assert build(folder, ", size=128").train().decode([99, 127]) == ""


def test_files_that_are_none_are_refused(tmp_path):
  assert "name a tokenizer.json" in refusal(
    lambda: tokenizers.build("huggingface").start
  )
  for number, (content, says) in enumerate(
    [
      (None, "cannot read"),
      (b"\xff", "is not UTF-8"),
      (b"{", "is not JSON"),
      (b"[]", "holds no object"),
      (b"{}", "has no 'model'"),
      (b'{"model": {"type": "New"}}', "cannot be read by tokenizers"),
    ]
  ):
    path = tmp_path / f"{number}.json"
    if content is not None:
      path.write_bytes(content)
    assert says in refusal(lambda path=path: build(path).vocabulary)
  tokenizers.build("byte").train().save(tmp_path / "run" / "tokenizer")
  says = refusal(lambda: build(tmp_path / "run" / "tokenizer").vocabulary)
  assert f"is the vocabulary of a run; write kept('{tmp_path / 'run'}')" in says


def test_no_hub_is_asked(tmp_path):
  build(written(tmp_path, "gpt2")).train().encode("a")
  assert not {"huggingface_hub", "transformers", "torch"} & {*sys.modules}


def test_tasks_read_texts_by_such_tokens(tmp_path):
  folder = written(tmp_path / "there", "bert")
  rows = [(f"the text {n}", ("good", "bad")[n % 2]) for n in range(60)]
  path = tmp_path / "all.tsv"
  path.write_text("".join("\t".join(row) + "\n" for row in rows))
  spec = f'"huggingface({str(folder)!r})"'
  task = tasks.build(f"classification({str(path)!r}, tokenizer={spec})")
  arrays, facts = task.load()
  assert arrays["frame_2"].tolist() == [2, 3] and task.vocabulary == 160
  assert facts["vocabulary"] == build(folder).train().fingerprint
  task = tasks.build(f"translation({str(path)!r}, 'a-b', tokenizer={spec})")
  arrays, _ = task.load()
  assert arrays["train"]["ends_2"].tolist() == [2, 3]
  task.keep(tmp_path / "run", task.load().fitted)
  assert load(tmp_path / "run" / "tokenizer").start == 2
