"""`boucle demo --strategy …`: versions come into traffic, or are tried there, on real requests with real outcomes."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from boucle.contracts.bundle import CONTRACT_FILE, BundleContract
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.look import RolloutLook
from boucle.contracts.traffic_plan import Strategy
from boucle.errors import ConfigurationError, NotEnoughDataError
from boucle.operations import pins, promotion, traffic
from boucle.operations.actor import Actor
from boucle.operations.production import promoted_bundles
from boucle.policy.ab import AbPolicy, Better
from boucle.policy.bandit import BanditPolicy
from boucle.policy.canary import CanaryPolicy, CanaryStep, Metric, Say, ShadowStep
from boucle.policy.interleaving import InterleavingPolicy
from boucle.policy.trials import TrafficPolicy
from boucle_adapters.home import Home
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.replicas import wait_until_served
from boucle_adapters.settings import Settings
from boucle_cli.demo.ranking import RouteDay, flights_of, rank_route_days, route_days
from boucle_cli.demo.run import Replay, serving, set_aside
from boucle_cli.demo.spoilt import Fault, Rows, spoilt_bundle
from boucle_cli.demo.traffic import Answer, Caller, answers_over, tell
from boucle_cli.output import ERR, OUT, show_json, show_table
from boucle_cli.services import free_port, running, wait_healthy
from boucle_cli.trials import show_look
from boucle_platform.instance import Runner
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.rollout import look

WHO = "user:demo"
REQUESTS_A_LOOK = 2_000
_ROWS = 2_000
_LISTS_A_LOOK, _LIST_SEEDS = 400, 12
_BETWEEN_LOOKS = timedelta(hours=1)
STRATEGIES = (Strategy.CANARY, Strategy.SHADOW, Strategy.AB, Strategy.BANDIT, Strategy.INTERLEAVING)
POLICY = TrafficPolicy(
    after_promotion=Strategy.CANARY,
    canary=CanaryPolicy(
        shadow=ShadowStep(min_requests=4_000, min_minutes=0),
        steps=(
            CanaryStep(weight=5, min_requests=100, min_minutes=0, required_pass=False),
            CanaryStep(weight=25, min_requests=500, min_minutes=0),
            CanaryStep(weight=50, min_requests=500, min_minutes=0),
        ),
        # Wide enough to be decided within the requests of a demo.
        failed=Metric(margin=0.05, effect=0.1, unit="ratio of requests"),
        slow=Metric(margin=0.1, effect=0.2, unit="ratio of requests", say=Say.VETO),
        # A better calibrated model shifts its scores: that is what it is better at.
        score_shift=Metric(margin=0.25, effect=0.5, unit="standard deviations"),
    ),
    ab=AbPolicy(metric="loss", unit="nats", better=Better.LOWER, min_effect=0.01, min_days=0, weight=50),
    interleaving=InterleavingPolicy(click_window_hours=0.5, min_days=0),
    bandit=BanditPolicy(reward_window_hours=0.5, min_days=0, min_rewards=500, max_expected_loss=0.005),
)
"""As a policy for production, but with no least time, and decided by the requests that a demo has."""


@dataclass
class Play:
    """One challenger, from its first request to what came of it."""

    challenger: str
    strategy: str
    version: int
    expected: str
    requests: int = 0
    failed_requests: int = 0
    looks: int = 0
    exposed: float = 0.0
    """The highest share of entities that it answered, per cent."""
    ended: bool = False
    came: str = ""
    """What came of it: promoted, stopped, asked for, or open."""
    said: str = ""
    path: list[str] = field(default_factory=list)

    @property
    def as_expected(self) -> bool:
        """Whether it came to what it should, and no caller saw a failure."""
        return self.came == self.expected and self.failed_requests == 0

    def row(self) -> dict[str, object]:
        """For people."""
        return {
            "challenger": self.challenger,
            "came to": self.came,
            "exposed": f"{self.exposed:g} %",
            "requests": f"{self.requests:,}, {self.failed_requests} failed",
        }


@dataclass(frozen=True)
class Asked:
    """A question of which the outcome is known by now."""

    entity_key: EntityKey
    as_of: datetime
    label: int


def played(settings: Settings, model: str, said: str, *, as_json: bool) -> bool:
    """Play one strategy with a good challenger and bad ones; whether each came to what it should.

    Raises:
        ConfigurationError: There is no such strategy.
    """
    if said not in STRATEGIES:
        raise ConfigurationError(f"'{said}' cannot be played; {', '.join(STRATEGIES)} can.")
    strategy = Strategy(said)
    started, spec = time.monotonic(), spec_of(model).model_copy(update={"traffic": POLICY})
    moved = set_aside(settings.home_dir)
    if moved and not as_json:
        OUT.print(f"The earlier state is kept in {moved}.")
    runner = Runner(settings)
    runner.home.state  # noqa: B018 - sets the store up before serving looks for it
    api, logs = serving(free_port(0)), settings.home_dir / "logs"
    environment = {"BOUCLE_HOME": str(settings.home_dir)}
    with running([api], logs=logs, environment=environment) as processes:
        wait_healthy(api, processes[0], logs=logs)
        replay = Replay(runner, spec, api, requests_per_month=0, watched=processes[0].pid, quiet=as_json)
        replay.until_two_versions()
        stage = Stage(runner.home, spec, replay.port, quiet=as_json)
        plays = list(stage.plays(strategy))
    good = bool(plays) and all(play.as_expected for play in plays)
    if as_json:
        done = {"strategy": strategy, "seconds": round(time.monotonic() - started, 1), "as_expected": good}
        show_json({**done, "plays": [{**asdict(play), "as_expected": play.as_expected} for play in plays]})
    else:
        show_table(f"{spec.model}: {strategy}", [play.row() for play in plays], empty="Nothing was played.")
        OUT.print(
            "Every challenger came to what it should." if good else "Not every challenger came to what it should."
        )
    return good


class Stage:
    """Challengers over one home and one serving process: real requests, their outcomes, and looks in between."""

    def __init__(self, home: Home, spec: LoopSpec, port: int, *, quiet: bool) -> None:
        self.home, self.spec, self.name = home, spec, ModelName(spec.model)
        self.port, self.quiet = port, quiet
        self.questions = _questions(home, spec)

    def plays(self, strategy: Strategy) -> Iterator[Play]:
        """A good challenger and bad ones."""
        production, candidate = _two_versions(self.home, self.spec)
        sound = promoted_bundles(self.home.state, self.name)[production]
        bundle = Digest(self.home.registry.version(self.name, candidate).tags["bundle_digest"])
        if strategy is Strategy.CANARY:
            yield self._canary("a retrained version", candidate, bundle, expected="in production")
            for fault in (Fault.CRASHING, Fault.SLOW, Fault.SHIFTED, Fault.WORSE):
                spoilt = self._spoilt(fault, bundle)
                yield self._canary(f"{fault} version", self._registered(fault, spoilt), spoilt, expected="stopped")
        elif strategy is Strategy.SHADOW:
            yield self._trial("a retrained version", strategy, candidate, bundle, expected="promotion asked for")
            for fault in (Fault.CRASHING, Fault.WORSE):
                spoilt = self._spoilt(fault, sound)
                version = self._registered(fault, spoilt)
                yield self._trial(f"{fault} version", strategy, version, spoilt, expected="stopped")
        else:
            yield from self._against_a_constant(strategy, candidate, bundle)

    def _against_a_constant(self, strategy: Strategy, candidate: ModelVersion, bundle: Digest) -> Iterator[Play]:
        """Production answers the average for everybody, as without a model; the model is tried beside it."""
        constant = self._spoilt(Fault.CONSTANT, bundle)
        weak = self._registered(Fault.CONSTANT, constant)
        self._promote(weak, constant)
        direct = self.spec.traffic.model_copy(update={"after_promotion": Strategy.DIRECT})
        plan = traffic.start_traffic(self.home.state, self.name, policy=direct, actor=self._actor())
        # Else the guard would soon see that everybody gets one answer, and put the model back.
        pins.pin(self.home.state, self.name, reason="demo: what a model is tried against", actor=self._actor())
        self._served(plan.revision)
        yield self._trial("the model", strategy, candidate, bundle, expected="promotion asked for")
        spoilt = self._spoilt(Fault.CRASHING, bundle)
        yield self._trial(
            "crashing version", strategy, self._registered(Fault.CRASHING, spoilt), spoilt, expected="stopped"
        )

    def _canary(self, what: str, version: ModelVersion, bundle: Digest, *, expected: str) -> Play:
        self._promote(version, bundle)
        plan = traffic.start_traffic(self.home.state, self.name, policy=self.spec.traffic, actor=self._actor())
        self._served(plan.revision)
        play = self._played(Play(what, Strategy.CANARY, version, expected))
        if play.ended:
            play.came = "in production" if self.home.state.production(self.name) == version else "stopped"
        return play

    def _trial(self, what: str, strategy: Strategy, version: ModelVersion, bundle: Digest, *, expected: str) -> Play:
        _, plan = traffic.try_version(
            self.home.state,
            self.name,
            challenger=version,
            bundle=bundle,
            strategy=strategy,
            policy=self.spec.traffic,
            actor=self._actor(),
            reason=f"demo: {what}",
        )
        self._served(plan.revision)
        play = self._played(Play(what, strategy, version, expected))
        if play.ended:
            play.came = "promotion asked for" if "asks for the promotion" in play.said else "stopped"
        return play

    def _played(self, play: Play) -> Play:
        """Ask, tell the outcomes, look; until the rollout is over or nobody is left to ask."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=ERR, disable=self.quiet, transient=True) as progress:
            task = progress.add_task(f"{play.strategy}: {play.challenger}")
            for traffic_of_a_look in self._traffic(play):
                traffic_of_a_look()
                self._pass_time()
                found = look(self.home, self.spec, who=WHO)
                if found is None:
                    break
                self._note(play, found)
                progress.update(task, description=f"{play.strategy}: {play.challenger}, {play.path[-1]}")
                if play.ended:
                    break
        if not play.ended:
            play.came = "not decided"
            traffic.abort(self.home.state, self.name, reason="demo: nobody is left to ask", actor=self._actor())
        if not self.quiet and (last := self.home.looks.newest(self.name)):
            show_look(last)
        return play

    def _note(self, play: Play, found: RolloutLook) -> None:
        rollout = found.rollout
        play.looks, play.said = play.looks + 1, found.said
        play.exposed = max(play.exposed, rollout.weight)
        place = f"{rollout.phase} {rollout.weight:g} %"
        if place not in play.path[-1:]:
            play.path.append(place)
        plan = self.home.state.plan(self.name)
        play.ended = plan is None or plan.rollout is None or not plan.rollout.is_open

    def _pass_time(self) -> None:
        """On the model's clock it is an hour later: what was told was told in time."""
        clock = self.home.clock(self.name)
        clock.set(clock.now() + _BETWEEN_LOOKS)

    def _show_lists(self, play: Play, groups: Sequence[RouteDay], seed: int) -> None:
        """Have lists ranked; users click what was late."""
        address = f"http://127.0.0.1:{self.port}"
        tally = rank_route_days(address, self.name, self.spec.entity, groups, seed=seed)
        play.requests += len(groups)
        play.failed_requests += sum(tally.failures.values())

    def _ask(self, play: Play, chunk: Sequence[Asked]) -> None:
        callers = [Caller("127.0.0.1", self.port, self.name, self.spec.entity) for _ in range(2)]
        answers, failures = answers_over(callers, [(one.entity_key, one.as_of) for one in chunk])
        play.requests += len(chunk)
        play.failed_requests += sum(failures.values())
        labels = {(str(one.entity_key), one.as_of): one.label for one in chunk}
        tell(self.port, [self._told(play, one, labels[one.entity_key, one.as_of]) for one in answers])

    def _told(self, play: Play, answer: Answer, label: int) -> dict[str, Any]:
        """What became of it. A bandit is paid for a contact with a buyer, and for sparing who does not buy."""
        said = {"prediction_id": answer.prediction_id, "at": self._actor().at.isoformat(), "model": self.name}
        if play.strategy != Strategy.BANDIT:
            return {**said, "outcome": label}
        base_rate = sum(one.label for one in self.questions) / len(self.questions)
        return {**said, "reward": float((answer.proba > base_rate) == bool(label))}

    def _traffic(self, play: Play) -> Iterator[Callable[[], None]]:
        """What is asked before each look: everybody once for each moment, in an order of the play's own, or lists."""
        if play.strategy == Strategy.INTERLEAVING:
            for seed in range(_LIST_SEEDS):
                yield partial(self._show_lists, play, self._lists(), seed)
            return
        order = list(self.questions)
        random.Random(f"{self.spec.training.seed}/{play.version}").shuffle(order)  # noqa: S311 - a seeded order
        for first in range(0, len(order), REQUESTS_A_LOOK):
            yield partial(self._ask, play, order[first : first + REQUESTS_A_LOOK])

    def _lists(self) -> list[RouteDay]:
        """The flights of each route and day that can be asked about and whose delay is known.

        Raises:
            ConfigurationError: The model ranks no flights.
        """
        if self.spec.model != "flight_delay":
            raise ConfigurationError(
                "Lists of flights are ranked: boucle demo --model flight_delay --strategy interleaving."
            )
        known = {one.entity_key for one in self.questions}
        days = {f"{one.as_of:%Y-%m-%d}" for one in self.questions}
        landed = (self.spec.history.export_period("flights", day) for day in sorted(days))
        flights = [flight for rows in landed if rows is not None for flight in flights_of(rows)]
        return route_days(flight for flight in flights if flight[2].flight_id in known)[:_LISTS_A_LOOK]

    def _promote(self, version: ModelVersion, bundle: Digest) -> None:
        """Make a version production with the evidence of the one that passed its gates, as if its fault had too."""
        _, candidate = _two_versions(self.home, self.spec)
        evidence = self.home.evidence.newest(self.name, candidate)
        if evidence is None:
            raise NotEnoughDataError(f"Version {candidate} of '{self.name}' was never evaluated.")
        changes = {
            "version": version,
            "bundle_digest": bundle,
            "production_version": self.home.state.production(self.name),
        }
        promotion.promote(
            self.home.state,
            self.home.registry,
            evidence=evidence.model_copy(update=changes),
            policy=self.spec.promotion,
            actor=self._actor(),
        )

    def _registered(self, fault: Fault, bundle: Digest) -> ModelVersion:
        import mlflow

        directory = self.home.bundles.fetch(bundle)
        contract = BundleContract.model_validate_json((directory / CONTRACT_FILE).read_bytes())
        self.home.registry.ensure_experiment(self.name)
        mlflow.set_tracking_uri(self.home.registry.tracking_uri)
        mlflow.set_experiment(self.name)
        example = [0.0] * len(contract.features)
        with mlflow.start_run(run_name=f"demo: {fault}"):
            return self.home.registry.register(
                contract,
                directory,
                example=example,
                tags={"bundle_digest": bundle, "note": f"demo: {fault} on purpose"},
            )

    def _spoilt(self, fault: Fault, sound: Digest) -> Digest:
        return spoilt_bundle(
            self.home,
            self.name,
            sound,
            fault,
            asked=_rows(self.home, self.questions, sound, seed=self.spec.training.seed),
        )

    def _served(self, revision: int) -> None:
        """Wait for the replica; what it does not follow shows in what is counted."""
        timeout = self.home.settings.replica_timeout_seconds
        wait_until_served(self.home.state, self.name, revision, timeout_seconds=10, replica_timeout_seconds=timeout)

    def _actor(self) -> Actor:
        return self.home.actor(WHO, self.name)


def _two_versions(home: Home, spec: LoopSpec) -> tuple[ModelVersion, ModelVersion]:
    """The first version, and the one that was trained after it."""
    first, second, *_ = [one.version for one in home.registry.versions(ModelName(spec.model))]
    return first, second


def _questions(home: Home, spec: LoopSpec) -> list[Asked]:
    """What can be asked about and is known by now, the newest moment first."""
    now = home.clock(ModelName(spec.model)).now().replace(tzinfo=None)
    rows = home.warehouse.query(
        f"select {spec.entity} as entity_key, as_of, label from {spec.labels} "  # noqa: S608 - our own names
        "where known_at <= ? and as_of > ? and label is not null order by as_of desc, entity_key",
        [now, now - timedelta(days=spec.online.retention_days)],
    )
    return [
        Asked(EntityKey(str(entity)), as_of.to_pydatetime().replace(tzinfo=UTC), int(label))
        for entity, as_of, label in rows.itertuples(index=False)
    ]


def _rows(home: Home, questions: Sequence[Asked], bundle: Digest, *, seed: int) -> Rows:
    """Feature rows of some of the questions, in the order of the bundle's contract."""
    contract = BundleContract.model_validate_json((home.bundles.fetch(bundle) / CONTRACT_FILE).read_bytes())
    online = OnlineStore(home.settings.online_dir / contract.model)
    online.refresh()
    names = online.snapshot.manifest.feature_names
    places = [names.index(name) for name in contract.feature_names]
    some = random.Random(seed).sample(questions, min(len(questions), _ROWS))  # noqa: S311 - a seeded sample
    rows = [
        online.look_up(one.entity_key, one.as_of, max_age_days=contract.max_feature_age_days).values for one in some
    ]
    found: Rows = np.array(rows, dtype=np.float64)[:, places]
    return found
