"""How the server as a whole is doing: for `GET /status`, and for `GET /metrics`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import psutil

from mmserve.models.registry import Registry
from mmserve.observability.metrics import Figures
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.supervision.environments import Environments
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.template import Template


class Overview:
    """`addresses` are those of the two APIs, by the names that they are shown by."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        template: Template,
        environments: Environments,
        addresses: Mapping[str, str],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._template = template
        self._environments = environments
        self._addresses = addresses
        self._started_at = time.monotonic()

    def figures(self) -> Figures:
        memory = self._supervisor.memory
        return Figures(len(self._dispatcher.queues), memory.budget, memory.used, self._supervisor.cpus)

    async def status(self) -> Mapping[str, Any]:
        """Seconds and bytes."""
        lifecycle, memory, store = self._supervisor.lifecycle, self._supervisor.memory, self._registry.store
        return {
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started_at, 3),
            **self._addresses,
            "modelStore": store.url if store is not None else None,
            "models": len(await self._registry.urls()),
            "workers": len(lifecycle.workers),
            "workersByState": Counter(worker.state.value for worker in lifecycle.workers),
            "workersStarted": lifecycle.started,
            "workersEnded": lifecycle.ended,
            "modelsFailed": sum(queue.pool.failure is not None for queue in self._dispatcher.queues),
            "template": {"pid": self._template.pid or None, "modules": len(self._template.modules)},
            "environments": [asdict(described) for described in self._environments.describe()],
            "memory": psutil.Process().memory_info().rss,
            "memoryUsed": memory.used,
            "memoryBudget": memory.budget,
        }
