"""What a scrape says, as prometheus_client's own parsers read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.servers import Server

TEXT = "text/plain; version=0.0.4"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

# A series: its name and its labels with their values.
Series = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """`values` of all series, and the `types` of their families by the names that series have in the text format."""

    def __init__(self, content_type: str, body: bytes) -> None:
        parse: Callable[[str], Iterable[Metric]] = (
            parse_open_metrics if content_type.startswith("application/openmetrics-text") else parse_text
        )
        self.types: dict[str, str] = {}
        self.values: dict[Series, float] = {}
        for family in parse(body.decode()):
            assert family.documentation, family.name
            assert family.name not in self.types, f"two families: {family.name}"
            self.types[family.name] = family.type
            for sample in family.samples:
                series = (sample.name, frozenset(sample.labels.items()))
                assert series not in self.values, f"twice: {series}"
                self.values[series] = sample.value

    def value(self, name: str, **labels: Any) -> float | None:
        return self.values.get((name, frozenset((label, str(said)) for label, said in labels.items())))

    def models(self, name: str) -> set[str]:
        """The models with a series of this name."""
        return {dict(labels)["model"] for series, labels in self.values if series == name}

    def growing(self) -> dict[Series, float]:
        """What may never fall: counters, and what histograms count."""
        kinds = ("_total", "_bucket", "_count", "_sum")
        return {
            series: value
            for series, value in self.values.items()
            if series[0].startswith("mmserve_") and series[0].endswith(kinds)
        }


def scrape(server: Server, accept: str = TEXT) -> Scraped:
    response = server.management.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200, response.text
    assert response.headers["x-request-id"]
    assert response.headers["content-type"].startswith(accept.partition(";")[0])
    return Scraped(response.headers["content-type"], response.content)
