"""The record of the code that ran, whatever git was told or refuses."""

import os
import subprocess

import pytest

from experiments.runner import provenance


@pytest.fixture
def repo(tmp_path, monkeypatch):
  """A committed project of one file; returns a function that calls git in it."""
  file = tmp_path / "experiments" / "provenance.py"
  file.parent.mkdir()
  file.write_bytes(b"# first\n")
  monkeypatch.setattr(provenance, "ROOT", tmp_path)
  monkeypatch.setattr(provenance, "PROJECT", (file.parent,))
  monkeypatch.setattr(provenance, "__file__", str(file))
  monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
  provenance._say.cache_clear()
  who = ["-c", "user.name=a", "-c", "user.email=a@b"]

  def git(*words, **how):
    done = subprocess.run(
      ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, **how
    )
    return done.stdout

  git("init", "-q")
  git("add", ".")
  git("commit", "-qm", "first")
  return git


def changed(git, tmp_path):
  """Returns the recorded patch; it must lead from the commit to what is on disk."""
  name, patch = provenance.commit()
  head = git("rev-parse", "--short=10", "HEAD").decode().strip()
  assert name.startswith(f"{head}+") and len(name) == 19 and patch
  before = {p: p.read_bytes() for p in tmp_path.rglob("*.py")}
  git("clone", "-q", tmp_path, tmp_path / "clone")
  apply = ["git", "-C", tmp_path / "clone", "apply", "--whitespace=nowarn", "-"]
  subprocess.run(apply, input=patch, check=True)
  for path, content in before.items():
    assert (tmp_path / "clone" / path.relative_to(tmp_path)).read_bytes() == content
  return patch


def test_a_clean_tree_is_the_commit(repo, tmp_path):
  name, patch = provenance.commit()
  assert len(name) == 10 and patch == b""
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs" / "note.txt").write_text("no code")
  (tmp_path / "mine.py").write_text("of the user, not of the project")
  assert provenance.commit() == (name, b"")
  assert repo("status", "--porcelain") == b"?? mine.py\n?? runs/\n"


def test_a_new_file_is_a_change(repo, tmp_path):
  """As the README's recipe makes one: positions/fade.py, not yet added."""
  (tmp_path / "experiments" / "positions").mkdir()
  (tmp_path / "experiments" / "positions" / "fade.py").write_text("rate = 1\n")
  assert b"+rate = 1" in changed(repo, tmp_path)
  assert repo("status", "--porcelain") == b"?? clone/\n?? experiments/positions/\n"


def test_an_ignored_file_of_the_project_is_a_change(repo, tmp_path):
  (tmp_path / ".git" / "info" / "exclude").write_text("*.py\n")
  (tmp_path / "experiments" / "fade.py").write_text("rate = 1\n")
  assert b"+rate = 1" in changed(repo, tmp_path)


def test_what_git_was_told_to_pass_over_is_a_change(repo, tmp_path):
  repo("update-index", "--assume-unchanged", "experiments/provenance.py")
  (tmp_path / "experiments" / "provenance.py").write_bytes(b"# second\n")
  assert b"+# second" in changed(repo, tmp_path)


SETTINGS = ("diff.external=false", "color.ui=always", "diff.noprefix=true")
SETTINGS += ("diff.renames=copies", "core.quotepath=true")


def test_the_patch_is_plain_whatever_the_user_set(repo, tmp_path):
  for setting in SETTINGS:
    repo("config", *setting.split("="))
  (tmp_path / "experiments" / "provenance.py").write_bytes(
    "# f\xfcr\n".encode("latin1")
  )
  (tmp_path / "experiments" / "fünf.py").write_bytes(b"\x00\xff binary\n")
  patch = changed(repo, tmp_path)
  assert b"\x1b" not in patch and b"+# f\xfcr" in patch and b"GIT binary patch" in patch


def test_the_environment_of_a_hook_does_not_lead_elsewhere(repo, tmp_path, monkeypatch):
  monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
  monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere"))
  assert len(provenance.commit()[0]) == 10


REFUSED = "fatal: detected dubious ownership in repository at '/x'\nTo add ..."


def test_a_refusal_of_git_is_said_once_and_the_sources_are_named(
  repo, monkeypatch, capsys
):
  refused = subprocess.CompletedProcess([], 128, b"", REFUSED.encode())
  monkeypatch.setattr(provenance.subprocess, "run", lambda *_, **__: refused)
  assert provenance.commit() == provenance.commit() == ("", b"")
  (line,) = capsys.readouterr().err.splitlines()
  assert "belongs to another user" in line and "safe.directory" in line
  assert "results name the hash of the source files instead" in line


def test_without_git_or_a_repository_nothing_is_said(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(provenance, "ROOT", tmp_path)
  assert provenance.commit() == ("", b"")
  monkeypatch.setenv("PATH", "")
  assert provenance.commit() == ("", b"") and capsys.readouterr().err == ""


def test_a_hash_of_the_sources_needs_no_git(repo, tmp_path):
  first = provenance.sources()
  (tmp_path / "experiments" / "note.txt").write_text("no code")
  assert provenance.sources() == first and len(first) == 16
  (tmp_path / "experiments" / "fade.py").touch()
  assert provenance.sources() != first


def test_facts_hold_what_changes_last_digits(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
  monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
  made_with, _ = provenance.facts()
  assert made_with["environment"] == {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
  assert "cores" in made_with["device"] and made_with["sources"]


def test_the_commit_is_known_inside_git_and_empty_outside(tmp_path, monkeypatch):
  monkeypatch.setattr(provenance, "ROOT", tmp_path)
  assert provenance.commit() == ("", b"")
  file = tmp_path / "file"
  monkeypatch.setattr(provenance, "__file__", str(file))
  file.write_text("a")
  (tmp_path / "other").touch()
  git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
  for words in (["init", "-q"], ["add", "other"], ["commit", "-qm", "a"]):
    subprocess.run([*git, *words], check=True)
  assert provenance.commit() == ("", b"")  # somebody else's repository
  for words in (["add", "file"], ["commit", "-qm", "b"]):
    subprocess.run([*git, *words], check=True)
  clean, changes = provenance.commit()
  assert len(clean) == 10 and not changes
  file.write_text("b")
  changed, changes = provenance.commit()
  assert changed.startswith(f"{clean}+") and b"+b" in changes
