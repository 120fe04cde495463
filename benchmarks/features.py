"""What point-in-time features cost: the macros of `dbt_features/macros/point_in_time.sql` against other ways.

    python benchmarks/features.py [--quick] [--json] [--peers-venv DIR]

join      `as_of_join` with one clock, a hand-written `ASOF LEFT JOIN` in DuckDB, pandas, polars, and Feast's
          `get_historical_features` with its DuckDB and its file (default) offline store
windows   count and sum over 7, 30 and 90 days: `window_aggregates`, prefix sums over a union, and a join by range with
          `filter`; of 100,000 entities, and of hot ones with 10,000 events each
periods   a month's features (both macros over a lookback of 90 days, for the customers of the month) of 120 equal
          months in one DuckDB table in order of time: median of months 111 to 120 over that of 3 to 8. Month 3 is the
          first whose 90 days are full. Medians of five passes

Sizes are 1M events x 100k rows, 10M x 100k and 10M x 1M (hot: 10M x 100k); the ratios are those of the largest. Events
are in order of time over three years, each at its own moment; a tenth of the rows ask at the moment of an event of
their entity. Each figure is from a process of its own: seconds from opening the Parquet files to the result in memory,
without imports, views and Feast's registry, and `ru_maxrss` then, with the libraries in it (a child inherits the peak
of its parent, which therefore does nothing itself). What takes under 20 s runs three times, in turns with the others:
median seconds, highest peak. `peak_memory_mib` is boucle's higher one of join and windows. Each result is compared with
plain DuckDB's (windows: the join by range) row by row. What fails or takes over 600 s has no figure and says why.

polars and Feast get an environment of their own, made where there is none (not with --quick). --quick is 1M x 100k, hot
1M x 5k, without Feast's file store, with five months, and starts no further run in a contest after its first 10 s.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

MACROS = Path(__file__).resolve().parents[1] / "dbt_features" / "macros" / "point_in_time.sql"
PEERS = ("feast[duckdb]==0.67.0", "polars")
PEERS_VENV = Path.home() / ".cache" / "boucle-benchmarks" / "peers"
ENTITIES, HOT_EVENTS = 100_000, 10_000
REPEATS, REPEATED_BELOW_SECONDS, QUICK_SECONDS, TIMEOUT_SECONDS = 3, 20, 10, 600
WINDOWS = {"7d": "7 days", "30d": "30 days", "90d": "90 days"}
MEASURES = {"n": "1", "total": "value"}
SUMS = [f"{measure}_{window}" for window in WINDOWS for measure in MEASURES]
# Every row with the events of its longest window.
RANGE_SUM = "coalesce(sum({m}) filter (where available_at > as_of - interval '{span}'), 0) as {m}_{w}"
RANGE_JOIN = """
    select wanted.entity_key, wanted.as_of, {sums}
    from (select distinct entity_key, as_of from asked) as wanted
    left join (select entity_key, available_at, 1 as n, value as total from facts) as facts
        on facts.entity_key = wanted.entity_key and available_at <= as_of and available_at > as_of - interval '90 days'
    group by wanted.entity_key, wanted.as_of"""
# Events and edges of windows on one time line, with running sums.
EDGE = "select entity_key, as_of - interval '{span}', true, as_of, '{w}', 0, 0 from wanted"
PREFIX_SUM = "max({m}) filter (where edge = '') - max({m}) filter (where edge = '{w}') as {m}_{w}"
PREFIX_SUMS = """
    with wanted as (select distinct entity_key, as_of from asked), line as (
        select entity_key, available_at as moment, false as is_edge, null::timestamp as as_of, null as edge,
            1 as n, value as total from facts
        union all {edges}
    ), running as (
        select entity_key, as_of, edge, is_edge, sum(n) over so_far as n, sum(total) over so_far as total from line
        window so_far as (partition by entity_key order by moment, is_edge rows unbounded preceding)
    )
    select entity_key, as_of, {sums} from running where is_edge group by entity_key, as_of"""
MONTHS, ORDERS, CUSTOMERS, PERIOD_REPEATS = 120, 50_000, 20_000, 5
FIRST_MONTH = "timestamp '2015-01-01'"
FIRST_FULL, EARLY, LATE = 3, 8, 111
PEER_JOINS = ("polars", "feast duckdb", "feast file")
JOINS = ("boucle", "duckdb", "pandas", *PEER_JOINS)
WINDOW_WAYS = ("boucle", "prefix sums over a union", "join by range")
TARGETS = {
    "ratio_to_duckdb_asof": ("at most", 1.3),
    "ratio_feast_to_boucle": ("at least", 15),
    "peak_memory_mib": ("at most", 2048),
    "window_ratio_to_best": ("at most", 1.3),
    "hot_entities_ratio_to_best": ("at most", 1.3),
    "period_cost_ratio_last_to_early": ("at most", 1.2),
}
Json = dict[str, Any]
Work = tuple[Callable[[], Any], Callable[[Any], object]]


@dataclass
class Figure:
    """What one contender took."""

    name: str
    events: int
    rows: int
    seconds: float | None = None
    peak_mib: float | None = None
    differing_rows: int | None = None
    note: str = ""


def main() -> None:
    """Measure and print, or do the one job a child process was started for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers-venv", type=Path, default=PEERS_VENV)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(JOBS[(job := json.loads(arguments.job))["job"]](job)))
        return
    peers, missing = peers_python(arguments.peers_venv, install=not arguments.quick)
    with tempfile.TemporaryDirectory(prefix="boucle-benchmark-", ignore_cleanup_errors=True) as folder:
        value = Benchmark(Path(folder), peers, missing, arguments.quick).run()
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        report(value)


def peers_python(folder: Path, *, install: bool) -> tuple[str, str]:
    """The Python that has polars and Feast, or why there is none."""
    python = folder / "bin" / "python"
    check = [str(python), "-c", "from importlib.metadata import version; version('feast'), version('polars')"]
    if python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return str(python), ""
    if not install:
        return "", "not installed yet: a run without --quick does"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}") or "uv"
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
    fill = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *PEERS]
    for command in (make, fill):
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=TIMEOUT_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", f"not installed: {error}"
        if done.returncode:
            return "", f"not installed: {last_line(done.stderr)}"
    return str(python), ""


@dataclass
class Benchmark:
    """One whole run, in a folder for the data."""

    folder: Path
    peers: str
    missing_peers: str
    quick: bool

    def run(self) -> Json:
        """Every figure, and the ratios of the largest sizes."""
        millions = ((1, 100_000),) if self.quick else ((1, 100_000), (10, 100_000), (10, 1_000_000))
        figures: list[Figure] = []
        for million, rows in millions:
            events = million * 1_000_000
            self.ask("generate", events=events, rows=rows, entities=ENTITIES)
            join = self.contest("join", events, rows, JOINS[:-1] if self.quick else JOINS)
            window = self.contest("windows", events, rows, WINDOW_WAYS)
            figures += [*join.values(), *window.values()]
        rows = 5_000 if self.quick else 100_000
        self.ask("generate", events=events, rows=rows, entities=events // HOT_EVENTS)
        hot = self.contest("windows, hot", events, rows, WINDOW_WAYS)
        periods = self.ask("periods", months=2 if self.quick else 12)
        return {
            "ratio_to_duckdb_asof": ratio(join["boucle"].seconds, join["duckdb"].seconds),
            "ratio_feast_to_boucle": ratio(join["feast duckdb"].seconds, join["boucle"].seconds),
            "period_cost_ratio_last_to_early": periods.get("ratio"),
            "peak_memory_mib": max(one["boucle"].peak_mib or 0 for one in (join, window)) or None,
            "window_ratio_to_best": ratio(window["boucle"].seconds, *(way.seconds for way in window.values())),
            "hot_entities_ratio_to_best": ratio(hot["boucle"].seconds, *(way.seconds for way in hot.values())),
            "contenders": [asdict(figure) for figure in (*figures, *hot.values())],
            "periods": periods,
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
        }

    def ask(self, job: str, *, python: str = sys.executable, **words: object) -> Json:
        """What a child process answers, or an `error`."""
        payload = json.dumps({"job": job, "folder": str(self.folder), **words})
        environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        command, limit = [python, __file__, "--job", payload], TIMEOUT_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, check=False, env=environment, text=True, timeout=limit)
            text = (
                f'{{"error": {json.dumps(last_line(done.stderr)[:200])}}}'
                if done.returncode
                else last_line(done.stdout)
            )
            answer: Json = json.loads(text)
        except subprocess.TimeoutExpired:
            answer = {"error": f"over {limit} s"}
        if job == "generate" and "error" in answer:
            raise SystemExit(f"The benchmark is void: no data, {answer['error']}")
        return answer

    def contest(self, kind: str, events: int, rows: int, names: Sequence[str]) -> dict[str, Figure]:
        """Run the contenders in turns, as often as their times allow, and compare their results."""
        started, runs = time.monotonic(), {name: list[Json]() for name in names}
        for repeat in range(REPEATS):
            for name in names if repeat % 2 == 0 else reversed(names):
                late = self.quick and time.monotonic() - started > QUICK_SECONDS
                if repeat and (late or runs[name][-1].get("seconds", TIMEOUT_SECONDS) > REPEATED_BELOW_SECONDS):
                    continue
                python = self.peers if name in PEER_JOINS else sys.executable
                answer = self.ask("contend", python=python, name=name, kind=kind) if python else {}
                runs[name].append(answer or {"error": self.missing_peers})
        wanted = "duckdb" if kind == "join" else "join by range"
        reference = next((name for name in (wanted, *names) if "seconds" in runs[name][0]), wanted)
        prefix, figures = "" if kind == "join" else f"{kind}: ", dict[str, Figure]()
        for name in names:
            figures[name] = Figure(prefix + name, events, rows)
            self.fill_in(figures[name], runs[name], self.ask("compare", name=name, reference=reference, kind=kind))
        for file in self.folder.glob("result-*.parquet"):
            file.unlink()
        return figures

    def fill_in(self, figure: Figure, runs: Sequence[Json], compared: Json) -> None:
        """Medians of the runs where none failed, and how the result compares."""
        failed = next((run["error"] for run in runs if "error" in run), "")
        figure.note = failed or f"{runs[0]['note']}, runs: {len(runs)}{compared.get('note', '')}"
        if not failed:
            figure.seconds = round(statistics.median(run["seconds"] for run in runs), 3)
            figure.peak_mib = round(max(run["peak_mib"] for run in runs))
            figure.differing_rows = compared.get("differing")
            figure.note += f", not compared: {compared['error']}" if "error" in compared else ""


def last_line(text: str) -> str:
    """Where an error says what it is."""
    return (text.strip().splitlines() or ["no output"])[-1]


def ratio(one: float | None, *others: float | None) -> float | None:
    """One to the least of the others, where they are known."""
    known = [other for other in others if other is not None]
    return round(one / min(known), 2) if one is not None and known else None


def generate(job: Json) -> Json:
    """Write the Parquet files `facts` and `asked`."""
    events, rows, entities, folder = job["events"], job["rows"], job["entities"], Path(job["folder"])
    year, start = 365 * 86_400_000_000, "timestamp '2022-01-01'"
    entity = f"cast(hash({{0}} * 7 + 1) % {entities} as bigint)"
    moment = f"{start} + to_microseconds(cast({{0}} as bigint) * {3 * year // events})"
    facts = f"""
        select {entity.format("i")} as entity_key, {moment.format("i")} as available_at,
            cast(hash(i * 3 + 2) % 1000 as integer) as value
        from range({events}) as numbers(i) order by i"""
    event = f"cast(hash(j * 13 + 5) % {events} as bigint)"
    asked = f"""
        select distinct
            case when j % 10 = 0 then {entity.format(event)} else {entity.format("(j + 99)")} end as entity_key,
            case when j % 10 = 0 then {moment.format(event)}
                else {start} + to_microseconds(cast({year // 2} + hash(j * 17 + 9) % {2 * year} as bigint)) end as as_of
        from range({rows}) as numbers(j)"""
    for name, query in (("facts", facts), ("asked", asked)):
        import_module("duckdb").sql(f"copy ({query}) to '{folder / name}.parquet' (format parquet)")
    return {}


def contend(job: Json) -> Json:
    """Time one contender, and write its result."""
    # Whatever takes too much memory goes before anything else on the machine does.
    limit = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.75)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if (score := Path("/proc/self/oom_score_adj")).exists():
        score.write_text("1000")
    name, joins = str(job["name"]), job["kind"] == "join"
    job["result"] = f"{job['folder']}/result-{name}.parquet"
    prepare = FRAMES.get(name.split(maxsplit=1)[0]) if joins else None
    work, write = prepare(job) if prepare else in_duckdb(job, join_sql(name) if joins else window_sql(name))
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    write(result)
    library = name.split(maxsplit=1)[0] if prepare else "duckdb"
    return {"seconds": seconds, "peak_mib": peak, "note": f"{library} {version(library)}"}


def macro(call: str, **words: object) -> str:
    """The SQL of a macro call."""
    jinja2, template = import_module("jinja2"), MACROS.read_text() + "{{ " + call + " }}"
    return str(jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(**words))


def in_duckdb(job: Json, query: str) -> Work:
    """A query over the views `facts` and `asked`."""
    folder, connection = Path(job["folder"]), import_module("duckdb").connect()
    for name in ("facts", "asked"):
        connection.execute(f"create view {name} as select * from read_parquet('{folder / name}.parquet')")
    copy = f"copy result to '{job['result']}' (format parquet)"
    return lambda: connection.execute(f"create temp table result as {query}"), lambda _: connection.execute(copy)


def join_sql(name: str) -> str:
    """The macro with one clock, or the join by hand."""
    if name == "boucle":
        return macro("as_of_join('asked', 'facts', ['entity_key'], ['value'], event_time='available_at')")
    on = "asked.entity_key = facts.entity_key and asked.as_of >= facts.available_at"
    return f"select asked.*, facts.value from asked asof left join facts on {on}"


def pandas_join(job: Json) -> Work:
    """`merge_asof`, which wants both sides in order of time."""
    import pandas as pd

    def work() -> pd.DataFrame:
        asked = pd.read_parquet(f"{job['folder']}/asked.parquet").sort_values("as_of")
        facts = pd.read_parquet(f"{job['folder']}/facts.parquet").sort_values("available_at")
        return pd.merge_asof(asked, facts, left_on="as_of", right_on="available_at", by="entity_key")

    return work, lambda frame: frame.to_parquet(job["result"])


def polars_join(job: Json) -> Work:
    """`join_asof`, lazily."""
    pl, clocks = import_module("polars"), {"left_on": "as_of", "right_on": "available_at"}

    def work() -> Any:
        asked = pl.scan_parquet(f"{job['folder']}/asked.parquet").sort("as_of")
        facts = pl.scan_parquet(f"{job['folder']}/facts.parquet").sort("available_at")
        joined = asked.join_asof(facts, **clocks, by="entity_key", strategy="backward", check_sortedness=False)
        return joined.select("entity_key", "as_of", "value").collect()

    return work, lambda frame: frame.write_parquet(job["result"])


def feast_join(job: Json) -> Work:
    """`get_historical_features`; the registry is made before the clock runs."""
    feast, pd, folder = import_module("feast"), import_module("pandas"), Path(job["folder"])
    own = Path(tempfile.mkdtemp(prefix="feast-", dir=folder))
    online, offline = {"type": "sqlite", "path": str(own / "online.db")}, {"type": job["name"].split()[1]}
    words = {"project": "benchmark", "provider": "local", "registry": str(own / "registry.db")}
    config = feast.RepoConfig(**words, online_store=online, offline_store=offline, entity_key_serialization_version=3)
    store = feast.FeatureStore(config=config)
    entity = feast.Entity(name="entity", join_keys=["entity_key"], value_type=feast.ValueType.INT64)
    source = feast.FileSource(path=str(folder / "facts.parquet"), timestamp_field="available_at")
    schema = [feast.Field(name="value", dtype=import_module("feast.types").Int32)]
    view = feast.FeatureView(name="facts", entities=[entity], ttl=timedelta(0), schema=schema, source=source)
    store.apply([entity, view])

    def work() -> Any:
        asked = pd.read_parquet(folder / "asked.parquet")
        return store.get_historical_features(entity_df=asked, features=["facts:value"]).to_df()

    def write(frame: Any) -> None:
        frame.assign(as_of=pd.to_datetime(frame["as_of"], utc=True).dt.tz_localize(None)).to_parquet(job["result"])

    return work, write


def window_sql(name: str) -> str:
    """One way to count and sum over the windows."""
    if name == "boucle":
        call = "window_aggregates('asked', 'facts', ['entity_key'], measures, windows)"
        return macro(call, measures=MEASURES, windows=WINDOWS)
    query, template = (RANGE_JOIN, RANGE_SUM) if name == "join by range" else (PREFIX_SUMS, PREFIX_SUM)
    sums = ", ".join(template.format(m=m, w=w, span=span) for w, span in WINDOWS.items() for m in MEASURES)
    edges = " union all ".join(EDGE.format(w=w, span=span) for w, span in {"": "0 days", **WINDOWS}.items())
    return query.format(sums=sums, edges=edges)


def compare(job: Json) -> Json:
    """How many rows of two results differ, and how many keys are missing."""
    connection, values = import_module("duckdb").connect(), ["value"] if job["kind"] == "join" else SUMS
    cast = ", ".join(f"cast({column} as bigint) as {column}" for column in ("entity_key", *values))
    for table, name in (("expected", job["reference"]), ("got", job["name"])):
        columns, file = f"cast(as_of as timestamp) as as_of, {cast}", f"{job['folder']}/result-{name}.parquet"
        connection.execute(f"create table {table} as select {columns} from read_parquet('{file}')")
    missing = "select * from expected anti join got using (entity_key, as_of)"
    queries = ("from expected except all from got", "from got except all from expected", missing)
    counts = [connection.execute(f"select count(*) from ({query})").fetchall()[0][0] for query in queries]
    return {"differing": max(counts[:2]), "note": f", {counts[2]:,} rows missing" if counts[2] else ""}


def periods(job: Json) -> Json:
    """The median seconds of each month's features."""
    connection = import_module("duckdb").connect(str(Path(job["folder"]) / "periods.duckdb"))
    connection.execute(f"""
        create table orders as
        select cast(hash(i * 7 + 1) % {CUSTOMERS} as bigint) as customer_id, cast(hash(i) % 10000 as integer) as cents,
            month + (month + interval 1 month - month) * (i % {ORDERS}) / {ORDERS} as available_at
        from (select range as i, {FIRST_MONTH} + to_months((i // {ORDERS})::int) as month from range({MONTHS * ORDERS}))
        order by i""")
    connection.execute("checkpoint")
    early, late = range(FIRST_FULL, EARLY + 1)[: job["months"]], range(LATE, MONTHS + 1)[-job["months"] :]
    seconds: dict[int, list[float]] = {month: [] for month in (*early, *late)}
    for repeat in range(PERIOD_REPEATS + 1):
        for month in [*seconds][:: 1 if repeat % 2 else -1]:
            start = time.perf_counter()
            connection.execute(f"create or replace temp table result as {period_sql(month)}")
            seconds[month] += [time.perf_counter() - start] if repeat else []
    medians = {month: round(statistics.median(times), 4) for month, times in seconds.items()}
    one, other = (round(statistics.median(medians[month] for month in part), 4) for part in (early, late))
    known = {"ratio": ratio(other, one), "early_seconds": one, "late_seconds": other, "seconds": medians}
    return {**known, "note": f"early from month {FIRST_FULL}"}


def period_sql(month: int) -> str:
    """Both macros for the customers of a month, as of its end; facts are those of the lookback, as in dbt's models."""
    end, lookback = f"({FIRST_MONTH} + interval {month} month)", WINDOWS["90d"]
    call = "window_aggregates('asked', 'recent', ['customer_id'], {'n': '1', 'total': 'cents'}, windows)"
    newest = macro("as_of_join('asked', 'recent', ['customer_id'], ['cents'], event_time='available_at')")
    return f"""
        with asked as (
            select distinct customer_id, {end} as as_of from orders
            where available_at >= {end} - interval 1 month and available_at < {end}
        ),
        recent as (select * from orders where available_at > {end} - interval '{lookback}' and available_at <= {end}),
        sums as ({macro(call, windows=WINDOWS)}), newest as ({newest})
        select * from sums join newest using (customer_id, as_of)"""


def report(value: Json) -> None:
    """The figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console, periods = Console(), value["periods"]
    table = Table(title=f"Point-in-time features, {value['cores']} cores", title_justify="left")
    for column in ("contender", "events", "rows", "seconds", "peak MiB", "differing rows", "note"):
        table.add_column(column, justify="left" if column in {"contender", "note"} else "right")
    for figure in value["contenders"]:
        table.add_row(*(cell if isinstance(cell, str) else shown(cell) for cell in figure.values()))
    console.print(table)
    parts = [f"{name} {shown(periods.get(f'{name}_seconds'))} s" for name in ("early", "late")]
    console.print(f"A month's features: {', '.join([*parts, periods.get('note') or periods['error']])}")
    headline = Table("figure", "measured", "target", "", title="At the largest size run", title_justify="left")
    for name, (side, target) in TARGETS.items():
        got = value[name]
        met = got is not None and (got <= target if side == "at most" else got >= target)
        verdict = "not measured" if got is None else "met" if met else "missed"
        headline.add_row(name, shown(got), f"{side} {target:,}", verdict)
    console.print(headline)


def shown(number: float | None) -> str:
    """A number, or a dash."""
    return "–" if number is None else f"{number:,}"


FRAMES = {"pandas": pandas_join, "polars": polars_join, "feast": feast_join}
JOBS = {"generate": generate, "contend": contend, "compare": compare, "periods": periods}

if __name__ == "__main__":
    main()
