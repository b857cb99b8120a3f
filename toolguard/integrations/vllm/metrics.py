"""What toolguard adds to vLLM's `/metrics`.

Turns are counted where they are read, in the API server. What the guard did is known in the
engine's workers; their figures are asked for now and then, and shown as they were last told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from ...parsing.turn import STATES, Turn
from .stats import MASSES, PRESSURES

_turns = Counter(
    "toolguard_turns", "Turns of requests with tools, by the state that was read.", ["state"]
)
_repaired = Counter("toolguard_repaired_turns", "Turns whose calls came back by repair.")
_unguarded = Counter(
    "toolguard_unguarded_requests", "Requests with tools that ran without a guard.", ["reason"]
)

RESPONSE_FORMAT = "response_format"
"""A request asks for a response format of its own, which forbids calls."""
POLICY_OFF = "policy_off"
"""A request asks for no guard."""

for _state in STATES:
    _turns.labels(_state)  # they are there from the start, at 0
for _reason in (RESPONSE_FORMAT, POLICY_OFF):
    _unguarded.labels(_reason)


def count_turn(written: Turn, repaired: Turn) -> None:
    """Counts a turn as it was written, and whether repair gave calls back."""
    _turns.labels(written.state).inc()
    if repaired.calls and not written.calls:
        _repaired.inc()


def count_unguarded(reason: str) -> None:
    """Counts a request with tools that runs without a guard."""
    _unguarded.labels(reason).inc()


def server_figures() -> dict[str, Any]:
    """What this API server counted, as plain values."""
    return {
        "turns": _values(_turns),
        "repaired": _values(_repaired)[""],
        "unguarded": _values(_unguarded),
    }


def _values(counter: Counter) -> dict[str, int]:
    """A counter's values by its label, or by the empty string."""
    return {
        "".join(sample.labels.values()): int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


class EngineMetrics(Collector):
    """The engine's figures, for the registry of `/metrics`.

    Attributes:
        figures: what the engine last told (`Stats.to_json`); None before that.
    """

    def __init__(self) -> None:
        self.figures: dict[str, Any] | None = None

    def collect(self) -> Iterator[Metric]:
        """The figures as metrics."""
        if self.figures is not None:
            yield from _metrics(self.figures)


def _metrics(of: Mapping[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily("toolguard_live_requests", "Guarded requests now.", of["live"])
    for name, what, value in (
        ("guarded_turns", "Guarded turns that are over.", of["turns"]),
        ("intervened_turns", "Turns in which the guard did something.", of["intervened"]),
        ("left_turns", "Turns that left the grammar: something overruled the guard.", of["left"]),
        ("failed_guards", "Requests whose guard could not be made.", of["unguarded"]),
        ("drift_alarms", "Alarms: the format drifts from its profile.", of["alarms"]),
    ):
        yield CounterMetricFamily(f"toolguard_{name}", what, value)
    yield GaugeMetricFamily("toolguard_drift_statistic", "Of the drift detector.", of["drift"])
    done = CounterMetricFamily(
        "toolguard_interventions",
        "What the guard did, by the control token that the model wanted.",
        labels=["action", "token"],
    )
    for action, tokens in of["interventions"].items():
        for token, count in tokens.items():
            done.add_metric([action, token], count)
    yield done
    pressure = HistogramMetricFamily(
        "toolguard_mask_pressure_nats", "Of steps where a mask took something away."
    )
    _add(pressure, [], PRESSURES, of["pressure"])
    yield pressure
    mass = HistogramMetricFamily(
        "toolguard_control_mass",
        "Of steps where a control token reached the gate, before any mask.",
        labels=["token"],
    )
    for token, histogram in of["masses"].items():
        _add(mass, [token], MASSES, histogram)
    yield mass
    for name, what, count, seconds in (
        ("compile", "Compiling guards.", of["compiled"], of["compile_seconds"]),
        ("step", "The guard's share of decoding steps.", of["steps"], of["step_seconds"]),
        ("fill", "What of that it takes to fill masks.", of["steps"], of["fill_seconds"]),
    ):
        yield SummaryMetricFamily(f"toolguard_{name}_seconds", what, count, seconds)


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    histogram: Mapping[str, Any],
) -> None:
    """Adds a histogram; Prometheus counts from below."""
    ends = [*map(str, bounds), "+Inf"]
    buckets = list(zip(ends, accumulate(histogram["counts"]), strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=histogram["sum"])
