"""What a node tells its operator: structured log lines and Prometheus metrics, both without personal data.

No token of a person, record id, address or body is written: only reason codes, counts, sizes, durations, the tokens
of nodes and members, and log indexes.
"""

from __future__ import annotations

import logging
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from careledger.seal import encode

__all__ = ["Metrics", "log", "set_up_logging"]

log = logging.getLogger("careledger.node")


class _Lines(logging.Formatter):
    """One JSON object a line: time (ms UTC), level, event, and the fields given as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": int(record.created * 1000),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["bug"] = record.exc_info[0].__name__
            line["trace"] = self.formatException(record.exc_info).splitlines()
        return encode(line).decode()


def set_up_logging(level: str = "info") -> None:
    """Send careledger's and uvicorn's warnings to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("careledger", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper() if name == "careledger" else "WARNING")
        logger.propagate = False


class Metrics:
    """The node's counters. One registry a node, so that several can live in one test process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "careledger_requests", "Requests by route and outcome code", ["route", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "careledger_request_seconds",
            "Time from a request's arrival to its answer",
            ["route"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.gauges = {
            name: Gauge(f"careledger_{name}", text, registry=self.registry)
            for name, text in (
                ("log_entries", "Entries in this node's log"),
                ("published_entries", "Entries under the published checkpoint"),
                ("cosignatures", "Cosignatures on the published checkpoint"),
                ("anchored_entries", "Entries under this node's last anchor in the directory"),
                ("directory_height", "Height of this node's directory replica"),
                ("directory_age_seconds", "Seconds since the directory head was last confirmed"),
                ("waiting", "Requests waiting for the writer"),
                ("peers_in_touch", "Peers whose heads were compared within the last 60 s"),
            )
        }
        self._counters: dict[tuple[str, str], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def observe(self, route: str, code: str, started: float) -> None:
        """Count one answered request; `started` is time.perf_counter() at its arrival."""
        counter = self._counters.get((route, code))
        if counter is None:
            counter = self._counters[route, code] = self.requests.labels(route, code)
        counter.inc()
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self.seconds.labels(route)
        histogram.observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)
