"""Which code it is, where there is no git: an image says what its builder knew."""

from pathlib import Path

from boucle_adapters.code_version import COMMIT_FILE, code_version


def test_an_image_says_the_commit_and_its_author(tmp_path: Path):
    (tmp_path / COMMIT_FILE).write_text("0123456789abcdef\nada@example.org\n")
    found = code_version(tmp_path)
    assert (found.label, found.author, found.dirty) == ("0123456789ab", "ada@example.org", False)


def test_of_what_nobody_said_the_digest_of_the_sources_is_known(tmp_path: Path):
    (tmp_path / COMMIT_FILE).write_text("\n\n")
    found = code_version(tmp_path)
    assert (found.commit, found.author) == ("", "")
    assert found.label.startswith("sources-")
