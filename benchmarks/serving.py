"""How fast boucle answers, beside the limit of its server and the servers that people use instead.

    python benchmarks/serving.py [--quick] [--json] [--plot FILE] [--peers-venv DIR]

Everything runs on this machine, one server at a time, beside the client: with one worker at 1, 8 and 32 connections,
with two workers at 8. Every contender has the same gradient boosting (80 trees, ten features) and answers one row a
request: boucle looks it up by entity and moment among 100,000 entities and writes it to its log before it answers; the
others get the ten values.

limit       an ASGI app that reads the body and gives a fixed answer, on boucle's own server (uvicorn)
boucle      the product: contract, look-up, draw between two arms, ONNX, log. Also with parts left out
naive       FastAPI with the pickled estimator in a thread pool; and with onnxruntime in an async route
mlflow      `mlflow models serve`, with the flavours sklearn and onnx
bentoml     a service with one API, with the estimator and with onnxruntime
mlserver    its scikit-learn runtime, and a runtime for ONNX written as its documents say

Start is from the process's start to the first correct answer; memory is resident, of all its processes, after the load.
The ratios that targets are about are measured side by side: the servers run at the same time, are asked in turn for a
second each, and the ratio is the median over these rounds, so that a machine that is slower now is slower for both.
The swap is boucle's, under load: from the plan's commit to the first answer of the new version, with the p99 of the
second after it over the p99 before. The log is one writer, one record at a time, with a sync each second. The batch is
1,000 rows in one array: boucle's scoring over bare onnxruntime, and its batch route from end to end.

Peers with the estimator are measured as shipped, and once more with one thread for its arithmetic (`1 thread`):
by default it takes a thread for each core even for one row. BentoML and MLServer get an environment of their own, made
where there is none. --quick: 8 connections only, 2 s each, with MLflow's sklearn flavour as the only peer.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
from load import Measured, http_request, load  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table
from serving_apps.make_estimator import FEATURES  # type: ignore[import-not-found]
from serving_world import APPS, MODEL, MOMENT, World  # type: ignore[import-not-found]

from boucle.contracts.ids import Digest, EntityKey, ModelVersion
from boucle.contracts.prediction import PredictionFields
from boucle_adapters.segment_log import SegmentLog
from boucle_cli.services import free_port
from boucle_serving.bundles import load_bundle

PEERS_VENV = Path.home() / ".cache" / "boucle-benchmarks" / "serving-peers"
PEERS = ("bentoml>=1.4.39,<2", "mlserver==1.7.1", "mlserver-sklearn==1.7.1", "onnxruntime", "pandas<3", "uvloop<0.22")
"""MLServer's worker processes do not start with a newer uvloop."""
START_SECONDS, WARM_SECONDS = 120.0, 1.0
TARGETS: Mapping[str, tuple[str, float]] = {
    "ratio_to_bare_asgi": ("at least", 0.30),
    "ratio_to_mlflow": ("at least", 50),
    "ratio_to_best_shipped_peer": ("at least", 50),
    "ratio_to_best_onnx_peer": ("at least", 4),
    "p99_over_limit_at_1_ms": ("at most", 0.5),
    "start_seconds": ("at most", 2),
    "memory_mib": ("at most", 150 / 1.048576),
    "swap_failed_requests": ("at most", 0),
    "swap_p99_ratio": ("at most", 2),
    "log_records_per_second": ("at least", 50_000),
    "batch_scoring_ratio": ("at most", 1.5),
}
Json = dict[str, Any]


class NoAnswerError(Exception):
    """A server did not start, or answered wrongly."""


@dataclass
class Figure:
    """One contender at one concurrency."""

    contender: str
    workers: int
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    start_seconds: float
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server: how it starts, what it is asked, and where the probability is in its answer."""

    name: str
    command: Callable[[int, int], list[str]]
    """By port and number of workers."""
    path: str
    bodies: Sequence[bytes]
    proba: Callable[[Any], float]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    scales: bool = True
    """Whether it is measured with two workers as well."""

    def requests(self) -> list[bytes]:
        """Whole requests."""
        return [http_request(self.path, body) for body in self.bodies]


def contenders(world: World, peers: str, *, quick: bool) -> list[Contender]:
    """Everybody, in the order of the table."""
    python = sys.executable
    about = [
        json.dumps({"entity": entity, "as_of": "2026-01-01"}, separators=(",", ":")).encode()
        for entity in world.entities
    ]
    rows = world.asked.to_dict(orient="records")
    plain = [json.dumps({"features": row}).encode() for row in rows]

    def boucle(name: str, command: Callable[[int], list[str]], *, scales: bool = False) -> Contender:
        return Contender(
            name=name,
            scales=scales,
            command=lambda port, _workers: command(port),
            path="/predict",
            bodies=about,
            proba=lambda answer: float(answer["proba"]),
            environment=world.environment(),
        )

    def naive(kind: str) -> Contender:
        return Contender(
            name=f"naive {kind}",
            command=lambda port, workers: [
                *(python, str(APPS / "naive.py"), str(port), str(world.folder), kind, str(workers))
            ],
            path="/predict",
            bodies=plain,
            proba=lambda answer: float(answer["proba"]),
        )

    def part(name: str) -> Contender:
        return boucle(f"boucle, {name}", lambda port: [python, str(APPS / "boucle_part.py"), str(port), name])

    mlflow = [_mlflow(world, flavour) for flavour in (("sklearn",) if quick else ("sklearn", "onnx"))]
    limit = Contender(
        name="limit",
        command=lambda port, workers: [python, str(APPS / "bare.py"), str(port), str(workers)],
        path="/predict",
        bodies=about,
        proba=lambda _: float(world.expected[0]),
    )
    whole = boucle("boucle", lambda _port: [python, "-m", "boucle_serving.main"], scales=True)
    if quick:
        return [limit, whole, *mlflow]
    ours = [part("model only"), part("with log"), part("with look-up"), whole]
    others = [naive("sklearn"), naive("onnx"), *mlflow]
    others += _bento(world, peers) + _mlserver(world, peers) if peers else []
    calm = [_with_one_thread(other) for other in others if other.name.endswith(" sklearn")]
    return [limit, *ours, *others, *calm]


def _with_one_thread(contender: Contender) -> Contender:
    environment = {**contender.environment, "OMP_NUM_THREADS": "1"}
    return replace(contender, name=f"{contender.name}, 1 thread", environment=environment)


def _mlflow(world: World, flavour: str) -> Contender:
    import mlflow

    target = world.folder / f"mlflow-{flavour}"
    if flavour == "sklearn":
        mlflow.sklearn.save_model(
            world.estimator, str(target), pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle"
        )
        bodies = [json.dumps({"dataframe_records": [row]}).encode() for row in world.asked.to_dict(orient="records")]
    else:
        import onnx

        mlflow.onnx.save_model(onnx.load(world.folder / "model.onnx"), str(target))
        bodies = [json.dumps({"inputs": {"features": [list(row)]}}).encode() for row in world.asked.to_numpy()]
    tool = str(Path(sys.executable).parent / "mlflow")
    return Contender(
        name=f"mlflow {flavour}",
        command=lambda port, workers: [
            *(tool, "models", "serve", "-m", str(target), "-p", str(port), "-h", "127.0.0.1"),
            *("--env-manager", "local", "-w", str(workers)),
        ],
        path="/invocations",
        bodies=bodies,
        proba=lambda answer: _last_number(answer["predictions"]),
        environment={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )


def _bento(world: World, peers: str) -> list[Contender]:
    bodies = [json.dumps({"features": row}).encode() for row in world.asked.to_dict(orient="records")]
    return [
        Contender(
            name=f"bentoml {kind}",
            command=lambda port, _workers: [
                *(str(Path(peers).parent / "bentoml"), "serve", "bento_service:Benchmark"),
                *("--port", str(port), "--host", "127.0.0.1", "--working-dir", str(APPS)),
            ],
            path="/predict",
            bodies=bodies,
            proba=float,
            environment={
                "BENCHMARK_FOLDER": str(world.folder / "peers"),
                "BENCHMARK_KIND": kind,
                "BENTOML_DO_NOT_TRACK": "1",
                "PATH": f"{Path(peers).parent}{os.pathsep}{os.environ['PATH']}",
            },
        )
        for kind in ("sklearn", "onnx")
    ]


def _mlserver(world: World, peers: str) -> list[Contender]:
    found = []
    for kind, implementation, model in (
        ("sklearn", "mlserver_sklearn.SKLearnModel", "estimator.pkl"),
        ("onnx", "mlserver_onnx.OnnxModel", "model.onnx"),
    ):
        folder = world.folder / f"mlserver-{kind}"
        folder.mkdir(exist_ok=True)
        (folder / "model-settings.json").write_text(
            json.dumps(
                {
                    "name": MODEL,
                    "implementation": implementation,
                    "parameters": {"uri": str(world.folder / "peers" / model)},
                }
            )
        )
        bodies = [
            json.dumps(
                {
                    "inputs": [{"name": "features", "datatype": "FP64", "shape": [1, FEATURES], "data": [list(row)]}],
                    **({"outputs": [{"name": "predict_proba"}]} if kind == "sklearn" else {}),
                }
            ).encode()
            for row in world.asked.to_numpy()
        ]
        found.append(
            Contender(
                name=f"mlserver {kind}",
                command=lambda _port, _workers: [str(Path(peers).parent / "mlserver"), "start", "."],
                path=f"/v2/models/{MODEL}/infer",
                bodies=bodies,
                proba=lambda answer: float(answer["outputs"][0]["data"][-1]),
                environment={
                    "PYTHONPATH": str(APPS),
                    "MLSERVER_HOST": "127.0.0.1",
                    "MLSERVER_DEBUG": "false",
                },
                folder=folder,
            )
        )
    return found


def _last_number(value: Any) -> float:
    """The probability of the event is the last of what is nested however deep."""
    while isinstance(value, list | dict):
        value = value[-1] if isinstance(value, list) else list(value.values())[-1]
    return float(value)


@contextmanager
def serving(
    contender: Contender, world: World, port: int, workers: int = 1
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a server; gives the process and the seconds to its first correct answer."""
    environment = {**os.environ, **contender.environment}
    environment |= {"BOUCLE_PORT": str(port), "BOUCLE_WORKERS": str(workers), "BENCHMARK_WORKERS": str(workers)}
    # MLServer computes in its own process, or in so many others.
    environment |= {"MLSERVER_HTTP_PORT": str(port), "MLSERVER_PARALLEL_WORKERS": str(workers if workers > 1 else 0)}
    for other in ("GRPC", "METRICS"):
        environment[f"MLSERVER_{other}_PORT"] = str(free_port(0))
    log = (world.folder / f"{contender.name}.log").open("wb")
    started = time.perf_counter()
    process = subprocess.Popen(
        contender.command(port, workers),
        env=environment,
        cwd=contender.folder or Path(__file__).parent,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process, _first_answer(contender, world, port, process, started)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=15)
        log.close()


def _first_answer(
    contender: Contender, world: World, port: int, process: subprocess.Popen[bytes], started: float
) -> float:
    said: object = None
    while time.perf_counter() - started < START_SECONDS and process.poll() is None:
        try:
            said = _ask(contender, port)
            if abs(contender.proba(said) - world.expected[0]) < 1e-6:
                return time.perf_counter() - started
        except (OSError, ValueError, KeyError) as error:
            said = error
        time.sleep(0.01)
    tail = (world.folder / f"{contender.name}.log").read_text(errors="replace")[-1500:]
    raise NoAnswerError(f"{contender.name} gave no correct answer (expected {world.expected[0]}): {said!r}\n{tail}")


def _ask(contender: Contender, port: int) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{contender.path}",
        data=contender.bodies[0],
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a server with all its processes."""
    root = psutil.Process(process.pid)
    return float(sum(one.memory_info().rss for one in [root, *root.children(recursive=True)]) / 2**20)


def measure(
    contender: Contender, world: World, connections: Sequence[int], seconds: float, *, workers: int = 1
) -> list[Figure]:
    """One contender at each concurrency."""
    port, figures = free_port(0), []
    with serving(contender, world, port, workers) as (process, start_seconds):
        load(port, contender.requests(), connections=max(connections), seconds=WARM_SECONDS)
        for count in connections:
            found = load(port, contender.requests(), connections=count, seconds=seconds)
            figures.append(
                Figure(
                    contender.name,
                    workers,
                    count,
                    round(found.per_second, 1),
                    round(found.quantile_ms(0.5), 3),
                    round(found.quantile_ms(0.99), 3),
                    round(memory_mib(process), 1),
                    round(start_seconds, 2),
                    dict(found.failures),
                )
            )
    return figures


def side_by_side(contenders: Sequence[Contender], world: World, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Requests per second of each at 8 connections, by round: all of them run, and are asked in turn."""
    found: dict[str, list[float]] = {}
    with ExitStack() as running:
        ports = {}
        for contender in contenders:
            ports[contender.name] = free_port(0)
            running.enter_context(serving(contender, world, ports[contender.name]))
            load(ports[contender.name], contender.requests(), connections=8, seconds=WARM_SECONDS)
        for _ in range(rounds):
            for contender in contenders:
                answered = load(ports[contender.name], contender.requests(), connections=8, seconds=seconds)
                found.setdefault(contender.name, []).append(answered.per_second)
    return found


def ratios(found: Mapping[str, Sequence[float]], names: Sequence[str]) -> float | None:
    """The median over rounds of boucle over the best of these; None where none was measured."""
    known = [found[name] for name in names if name in found]
    if not known:
        return None
    best = [max(others) for others in zip(*known, strict=True)]
    by_round = (ours / theirs for ours, theirs in zip(found["boucle"], best, strict=True))
    return float(round(statistics.median(by_round), 3))


def swap(whole: Contender, world: World, times: int) -> Json:
    """Versions change under load, a second after each other."""
    port, swaps = free_port(0), []
    with serving(whole, world, port):
        load(port, whole.requests(), connections=8, seconds=WARM_SECONDS)
        found: list[Measured] = []
        seconds = 2.0 + 2.0 * times
        asking = Thread(target=lambda: found.append(load(port, whole.requests(), connections=8, seconds=seconds)))
        asking.start()
        time.sleep(2)
        for _ in range(times):
            world.promote(100)
            at = time.perf_counter()
            while int(_ask(whole, port)["model_version"]) != world.version:
                time.sleep(0.002)
            swaps.append((at, time.perf_counter() - at))
            time.sleep(max(0.0, 2 - (time.perf_counter() - at)))
        asking.join()
    (tally,) = found
    normal = statistics.median(
        tally.quantile_ms(0.99, start=at - 1, end=at) for at, _ in swaps if at - 1 >= tally.began
    )
    during = statistics.median(tally.quantile_ms(0.99, start=at, end=at + 1) for at, _ in swaps)
    return {
        "swap_seconds": round(statistics.median(taken for _, taken in swaps), 3),
        "swap_p99_ratio": round(during / normal, 2),
        "swap_failed_requests": tally.failures.total(),
        "swap_requests": len(tally.seconds),
    }


def log_speed(folder: Path, seconds: float) -> Json:
    """One writer, record by record, as requests do; a thread brings the log to the disk each second."""
    log, over = SegmentLog(folder / "log"), time.perf_counter() + seconds
    record = PredictionFields(
        schema_version=1,
        prediction_id="0b5c8a3e8b0d4a0f9f3e2c1d5a6b7c8d",
        request_id="0b5c8a3e8b0d4a0f9f3e2c1d5a6b7c8d",
        at=MOMENT,
        model=MODEL,
        entity_key=EntityKey("000004"),
        as_of=MOMENT,
        features_as_of=MOMENT,
        model_version=ModelVersion(1),
        bundle_digest=Digest("0" * 64),
        plan_revision=1,
        assigned_role="production",
        answering_role="production",
        propensity=1.0,
        proba=0.12345678901234567,
        features=(0.125, 1.5, float("nan"), 2.25, -0.75, 0.333, 1.0, 2.0, 3.0, 4.125),
        latency_ms=0.1,
        replica="benchmark",
        fallback=None,
        pinned=False,
    )

    def keep() -> None:
        while time.perf_counter() < over:
            time.sleep(1)
            log.sync()

    keeper = Thread(target=keep)
    keeper.start()
    written, started = 0, time.perf_counter()
    while time.perf_counter() < over:
        for _ in range(1_000):
            log.append(record)
        written += 1_000
    taken = time.perf_counter() - started
    keeper.join()
    log.close()
    return {"log_records_per_second": round(written / taken)}


def batch(whole: Contender, world: World, times: int) -> Json:
    """A thousand rows: bare onnxruntime, boucle's scoring of the same array, and the batch route."""
    bundle = load_bundle(world.bundles.read(world.digests[0]), world.digests[0])
    rows = world.values[:1_000]
    bare, scoring = [], []
    for _ in range(times):
        bare.append(_seconds(lambda: bundle.session.run(None, {"features": rows})))
        scoring.append(_seconds(lambda: bundle.scores(rows)))
    port = free_port(0)
    body = json.dumps({"rows": [{"entity": f"{place:06d}", "as_of": "2026-01-01"} for place in range(1_000)]}).encode()
    with serving(whole, world, port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/models/{MODEL}/predict/batch", data=body)
        route = [_seconds(lambda: urllib.request.urlopen(request, timeout=30).read()) for _ in range(times)]
    return {
        "batch_onnxruntime_ms": round(statistics.median(bare) * 1_000, 3),
        "batch_scoring_ratio": round(statistics.median(scoring) / statistics.median(bare), 2),
        "batch_route_ms": round(statistics.median(route) * 1_000, 1),
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peers_python(folder: Path) -> tuple[str, str]:
    """The Python that has BentoML and MLServer, or why there is none."""
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.exists() and done.read_text() == "\n".join(PEERS):
        return str(python), ""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}") or "uv"
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
    fill = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *PEERS]
    for command in (make, fill):
        ran = subprocess.run(command, capture_output=True, check=False, text=True)
        if ran.returncode:
            return "", f"not installed: {ran.stderr.strip()[-300:]}"
    done.write_text("\n".join(PEERS))
    return str(python), ""


def run(folder: Path, arguments: argparse.Namespace) -> Json:
    """Every figure, and the ratios that the targets are about."""
    console = Console(stderr=True)
    console.print("preparing the model, the features and two versions ...")
    world = World(folder)
    world.promote(100)
    world.promote(100)
    world.try_out(weight=25)
    peers, missing = ("", "left out by --quick") if arguments.quick else peers_python(arguments.peers_venv)
    if peers:
        (folder / "peers").mkdir()
        shutil.copy(folder / "model.onnx", folder / "peers" / "model.onnx")
        subprocess.run([peers, str(APPS / "make_estimator.py"), str(folder / "peers")], check=True)
    everybody = contenders(world, peers, quick=arguments.quick)
    only = arguments.only.split(",") if arguments.only else [one.name for one in everybody]
    figures: list[Figure] = []
    plans: list[tuple[int, tuple[int, ...], float]] = (
        [(1, (8,), 2)] if arguments.quick else [(1, (1, 8, 32), 5), (2, (8,), 5)]
    )
    failed = []
    for contender in everybody:
        for workers, connections, seconds in plans if contender.name in only else []:
            if workers == 1 or contender.scales:
                console.print(f"{contender.name}, {workers} worker{'s' if workers > 1 else ''} ...")
                try:
                    figures += measure(contender, world, connections, seconds, workers=workers)
                except NoAnswerError as error:  # a peer's failure is its own
                    console.print(str(error), markup=False)
                    failed.append(f"{contender.name}, {workers} workers")
    whole = next(one for one in everybody if one.name == "boucle")
    console.print("side by side ...")
    measured = {figure.contender for figure in figures}
    beside = [one for one in everybody if one.name in measured & {"limit", "boucle", *_best_peers(figures)}]
    paired = side_by_side(beside, world, *((8, 0.5) if arguments.quick else (15, 1.0)))
    console.print("swap, log, batch ...")
    more = {
        **swap(whole, world, 2 if arguments.quick else 5),
        **log_speed(folder, 3 if arguments.quick else 10),
        **batch(whole, world, 20),
    }
    return {
        **summary(figures, paired),
        **more,
        "missing_peers": missing,
        "failed_to_start": failed,
        "figures": [asdict(figure) for figure in figures],
    }


def _best_peers(figures: Sequence[Figure]) -> set[str]:
    """The fastest peer of each kind, at 8 connections and one worker."""
    rate = {one.contender: one.per_second for one in figures if (one.workers, one.connections) == (1, 8)}
    kinds = (_shipped(rate), _with_onnx(rate), ["mlflow sklearn"] if "mlflow sklearn" in rate else [])
    return {max(names, key=lambda name: rate[name]) for names in kinds if names}


def _shipped(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(" sklearn") and not name.startswith("naive")]


def _with_onnx(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(" onnx") and not name.startswith("naive")]


def summary(figures: Sequence[Figure], paired: Mapping[str, Sequence[float]]) -> Json:
    """Ratios at 8 connections and one worker."""
    at = {(figure.contender, figure.connections): figure for figure in figures if figure.workers == 1}
    whole = at[("boucle", 8)]
    calm = [figure for (name, count), figure in at.items() if name.endswith(" 1 thread") and count == 8]
    one = [at[key].p99_ms for key in (("boucle", 1), ("limit", 1)) if key in at]
    best_calm = max((figure.per_second for figure in calm), default=None)
    return {
        "ratio_to_bare_asgi": ratios(paired, ["limit"]),
        "ratio_to_mlflow": ratios(paired, ["mlflow sklearn"]),
        "ratio_to_best_shipped_peer": ratios(paired, _shipped(paired)),
        "ratio_to_best_onnx_peer": ratios(paired, _with_onnx(paired)),
        "ratio_to_best_one_thread_peer": best_calm and round(whole.per_second / best_calm, 3),
        "p99_over_limit_at_1_ms": round(one[0] - one[1], 3) if len(one) == 2 else None,
        "start_seconds": whole.start_seconds,
        "memory_mib": whole.memory_mib,
    }


def missed(value: Json) -> list[str]:
    """Targets that were not reached; what was not measured was not missed."""
    return [
        name
        for name, (which, limit) in TARGETS.items()
        if value.get(name) is not None and (value[name] < limit if which == "at least" else value[name] > limit)
    ]


def report(value: Json) -> None:
    """Tables for people."""
    limit = {
        (one["workers"], one["connections"]): one["per_second"]
        for one in value["figures"]
        if one["contender"] == "limit"
    }
    columns = ("workers", "connections", "requests/s", "of the limit", "p50 ms", "p99 ms", "MiB", "start s", "failed")
    table = Table("server", *columns)
    for one in value["figures"]:
        share = one["per_second"] / limit.get((one["workers"], one["connections"]), float("nan"))
        table.add_row(
            *(one["contender"], str(one["workers"]), str(one["connections"])),
            *(f"{one['per_second']:,.0f}", f"{share:.3f}"),
            *(
                f"{one['p50_ms']:.2f}",
                f"{one['p99_ms']:.2f}",
                f"{one['memory_mib']:.0f}",
                f"{one['start_seconds']:.1f}",
            ),
            str(sum(one["failures"].values())),
        )
    goals = Table("figure", "measured", "target")
    for name, figure in value.items():
        if name != "figures":
            which, goal = TARGETS.get(name, ("", ""))
            goals.add_row(name, str(figure), f"{which} {goal:g}" if isinstance(goal, float | int) else "")
    console = Console()
    console.print(table)
    console.print(goals)


def plot(value: Json, file: Path) -> None:
    """Requests per second at 8 connections, on a logarithmic scale."""
    import matplotlib.pyplot as plt

    chosen = [one for one in value["figures"] if (one["workers"], one["connections"]) == (1, 8)][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(chosen) + 1.2), layout="constrained")
    colours = ["#2563eb" if one["contender"].startswith("boucle") else "#9ca3af" for one in chosen]
    bars = axes.barh([one["contender"] for one in chosen], [one["per_second"] for one in chosen], color=colours)
    axes.bar_label(bars, [f"{one['per_second']:,.0f}" for one in chosen], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("requests per second, 8 connections, one worker")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> int:
    """Print tables, or JSON; the exit code is 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, help="where to draw requests per second")
    parser.add_argument("--only", default="", help="some servers, by name, with commas")
    parser.add_argument("--peers-venv", type=Path, default=PEERS_VENV)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boucle-serving-", ignore_cleanup_errors=True) as folder:
        value = run(Path(folder), arguments)
    value["missed"] = missed(value)
    if arguments.plot:
        plot(value, arguments.plot)
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        report(value)
    return bool(value["missed"])


if __name__ == "__main__":
    sys.exit(main())
