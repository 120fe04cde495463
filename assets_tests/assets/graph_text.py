"""The asset graph of the code location as text, one line per asset.

`python -m assets_tests.assets.graph_text` writes it. Loading the definitions makes a home (dbt writes its manifest
there), so `BOUCLE_HOME` should name one to throw away.
"""

from pathlib import Path

import dagster as dg

GOLDEN = Path(__file__).with_name("asset_graph.txt")


def definitions() -> dg.Definitions:
    """The code location, on the home that the environment names."""
    from boucle_platform.definitions import defs

    return defs()


def graph_text(found: dg.Definitions) -> str:
    """Every asset with what it needs, who owns it, what it is made with, and what is checked of it."""
    graph = found.resolve_asset_graph()
    return "".join(
        f"{_line(graph, key)}\n" for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.to_user_string())
    )


def _line(graph: "dg.AssetGraph", key: dg.AssetKey) -> str:  # type: ignore[name-defined]
    node = graph.get(key)
    partitions = node.partitions_def
    checks = [
        f"{check.name}{' (blocking)' if graph.get_check_spec(check).blocking else ''}"
        for check in sorted(node.check_keys, key=lambda check: check.name)
    ]
    return " | ".join(
        [
            f"{key.to_user_string()} <- {_words(parent.to_user_string() for parent in node.parent_keys)}",
            f"owners: {_words(node.owners)}",
            f"kinds: {_words(node.kinds)}",
            f"by: {type(partitions).__name__.removesuffix('PartitionsDefinition') if partitions else 'run'}",
            f"pool: {_words(node.pools or ())}",
            f"checks: {', '.join(checks) or '-'}",
        ]
    )


def _words(values: object) -> str:
    return ", ".join(sorted(values)) or "-"  # type: ignore[call-overload]


if __name__ == "__main__":
    GOLDEN.write_text(graph_text(definitions()))
