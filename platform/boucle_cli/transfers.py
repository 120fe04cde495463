"""The verbs that carry a version from one environment to another: out as one file, in as a candidate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from boucle.contracts.ids import ModelVersion
from boucle.errors import ArchiveError, ConfigurationError
from boucle_cli.context import Json, Model, acting_user, find_spec, open_home, open_runner
from boucle_cli.output import ERR, FAILED, OUT, errors_for_people, show_json, show_table

Version = Annotated[int, typer.Argument(min=1, help="The version, as the registry counts.")]


def export_version(
    version: Version,
    model: Model,
    *,
    to: Annotated[Path, typer.Option(help="The archive to write; one that is there already is replaced.")],
    as_json: Json = False,
) -> None:
    """Write one version with its evidence as an archive, for `boucle import` in another environment."""
    from boucle_adapters.atomic_file import replace_bytes
    from boucle_platform.transfer import export_version as pack_up

    with errors_for_people():
        manifest, content = pack_up(open_home(), find_spec(model), ModelVersion(version))
        try:
            replace_bytes(to, content)
        except OSError as error:
            raise ConfigurationError(f"{to} cannot be written ({error.strerror}). Nothing was written.") from error
    done = {
        "file": str(to),
        "bytes": len(content),
        "model": manifest.model,
        "version": manifest.version,
        "environment": manifest.environment,
        "bundle_digest": manifest.bundle_digest,
        "evidence_digest": manifest.evidence_digest,
    }
    if as_json:
        show_json(done)
    else:
        OUT.print(
            f"Version {version} of '{model}', bundle {manifest.bundle_digest}: {to} ({len(content):,} bytes).",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def import_version(
    file: Annotated[Path, typer.Argument(help="What `boucle export` wrote.")],
    as_json: Json = False,
) -> None:
    """Register the version of an archive as a candidate and judge it on this home's data; it promotes nothing."""
    from boucle_adapters.model_archive import unpack
    from boucle_platform.transfer import import_archive, spec_for

    with errors_for_people(), ERR.status("checking every digest …", spinner="line") as status:
        archive = unpack(_content(file))
        spec = spec_for(archive)
        found = import_archive(
            open_runner(), spec, archive, who=acting_user(), progress=lambda said: status.update(f"{said} …")
        )
        production = open_home().state.production(spec.name)
    done = {
        "model": spec.model,
        "version": found.version,
        "registered": found.created,
        "made_here": found.made_here,
        "from": found.manifest.origin,
        "bundle_digest": found.manifest.bundle_digest,
        "evidence_digest": found.evidence.digest() if found.evidence else None,
        "verdict": found.evidence.verdict.value if found.evidence else None,
        "said": found.said,
        "production": production,
    }
    if as_json:
        show_json(done)
    else:
        _show(done, found.evidence)
    if not found.passed:
        raise typer.Exit(FAILED)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read ({error.strerror}). Nothing was registered.") from error


def _show(done: dict[str, Any], evidence: Any) -> None:
    from boucle_cli.people import gate_row

    version, model = done["version"], done["model"]
    when = "registered now" if done["registered"] else "registered before"
    sentences = [f"Version {version} of '{model}', {when}, is {done['from']}: bundle {done['bundle_digest']}."]
    if done["made_here"]:
        sentences.append("It was made here as well, from the same rows: nothing was imported.")
    elif done["production"] == version:
        sentences.append("It is in production here.")
    elif done["said"]:
        judged = "It was not judged here" if evidence is None else "It did not pass here"
        sentences.append(f"{judged}: {done['said']} Importing it again judges it again.")
    else:
        sentences.append(f"To make it production: boucle promote {version} {model} --reason …")
    if evidence is not None:
        show_table("judged here", [gate_row(gate) for gate in evidence.gates], empty="")
    for sentence in sentences:
        OUT.print(sentence, markup=False, highlight=False, soft_wrap=True)
    OUT.print(f"In production: {done['production'] or 'nothing yet'}.")
