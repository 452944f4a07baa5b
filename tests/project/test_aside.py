"""Damaged files are renamed, and no earlier one is lost by it."""

from transformer_jax.aside import set_aside


def test_each_damaged_file_gets_a_name_of_its_own(tmp_path):
  file, names = tmp_path / "status.json", []
  for content in ("first", "second", "third"):
    file.write_text(content)
    names.append(set_aside(file))
  assert names == [f"status.json.damaged{end}" for end in ("", "-2", "-3")]
  assert [(tmp_path / name).read_text() for name in names] == [
    "first",
    "second",
    "third",
  ]
  assert not file.exists()
