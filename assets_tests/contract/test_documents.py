"""What this release writes, every later one reads: an example of each document, as the loop wrote it on real data."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import boucle.contracts
from boucle.contracts.document import Document, canonical_json

EXAMPLES = Path(__file__).with_name("documents")


def kinds() -> dict[str, type[Document]]:
    """Every document that says its schema version, by name."""
    for module in pkgutil.iter_modules(boucle.contracts.__path__):
        importlib.import_module(f"{boucle.contracts.__name__}.{module.name}")
    return {kind.__name__: kind for kind in below(Document) if "schema_version" in kind.model_fields}


def below(kind: type[Document]) -> set[type[Document]]:
    return {found for one in kind.__subclasses__() for found in {one, *below(one)}}


def example(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def holds(read: Any, written: Any) -> bool:
    """Whether everything that was written is there; fields with a default may have come since."""
    if isinstance(written, dict):
        return all(key in read and holds(read[key], value) for key, value in written.items())
    if isinstance(written, list):
        return len(read) == len(written) and all(map(holds, read, written))
    return bool(read == written)


def test_every_versioned_document_has_an_example():
    assert {file.stem for file in EXAMPLES.glob("*.json")} == set(kinds())


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_document_of_the_first_release_is_read_with_every_value(name: str):
    written = example(name)
    assert holds(json.loads(kinds()[name].model_validate(written).canonical()), written)


@pytest.mark.parametrize("name", ["NewDecision", "Evidence", "BundleManifest"])
def test_a_document_that_is_known_by_its_digest_keeps_it(name: str):
    """The ledger, an evidence file, a bundle: another digest, and everything written before would be called damaged.

    A new field needs a new schema version, and the old ones keep their canonical form.
    """
    written = example(name)
    assert kinds()[name].model_validate(written).canonical() == canonical_json(written)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_document_of_an_unknown_schema_is_refused(name: str):
    with pytest.raises(ValidationError, match="schema_version"):
        kinds()[name].model_validate(example(name) | {"schema_version": 99})


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_misspelt_field_does_not_pass_silently(name: str):
    with pytest.raises(ValidationError, match="schema_verison"):
        kinds()[name].model_validate(example(name) | {"schema_verison": 1})
