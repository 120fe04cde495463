"""The command `boucle` starts fast: what only some verbs need is loaded by them."""

import subprocess
import sys

HEAVY = ("pandas", "pandera", "pyarrow", "dagster", "mlflow", "duckdb", "sklearn", "evidently")


def test_the_command_starts_without_what_only_some_verbs_need():
    program = f"import sys, boucle_cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.strip() == "[]"
