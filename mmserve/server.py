"""The composition root: builds the parts of the front, starts and stops them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import uvloop

from mmserve import runfile
from mmserve.config import Settings
from mmserve.defaults import model_defaults
from mmserve.errors import StartError
from mmserve.freshness import Freshness
from mmserve.http.asking import Asking
from mmserve.http.body import BodyReader
from mmserve.http.heads import Heads
from mmserve.http.inference import InferenceApi
from mmserve.http.lane import Lane
from mmserve.http.listener import Listener, bind
from mmserve.http.management import ManagementApi
from mmserve.http.native import Native
from mmserve.http.observation import ObservationApi
from mmserve.http.sagemaker import SageMaker
from mmserve.http.targets import Targets
from mmserve.models import keys
from mmserve.models.archive import ArchiveCache, UnpackLimits
from mmserve.models.content import prepare
from mmserve.models.model import Model
from mmserve.models.registrations import Registrations
from mmserve.models.registry import Registry
from mmserve.models.s3 import S3, S3Options
from mmserve.models.s3_objects import Objects
from mmserve.models.s3_records import CachedObjects
from mmserve.models.settings import ModelSettings
from mmserve.models.source import LocalSource, Source
from mmserve.models.stores import store_of
from mmserve.models.trust import policy
from mmserve.observability.events import EventLog
from mmserve.observability.metrics import Metrics
from mmserve.observability.places import Places
from mmserve.operations import Operations
from mmserve.overview import Overview
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.observed import ObservedQueue
from mmserve.supervision.environment_store import EnvironmentStore
from mmserve.supervision.environments import Environments
from mmserve.supervision.installing import Installer
from mmserve.supervision.limits import Limits
from mmserve.supervision.memory import MIB
from mmserve.supervision.pool import Pool
from mmserve.supervision.preparation import Preparation
from mmserve.supervision.promptness import be_prompt
from mmserve.supervision.spawning import hide_from_workers
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.template import Template

logger = logging.getLogger("mmserve")

# Of the memory that may be used; the front's own requests and the host's other work need some.
_MEMORY_BUDGET = 0.9
# Long batches that run at one time for each usable CPU: a second one is ready when the first waits for the front.
_SLOTS_PER_CPU = 2
# Seconds: SageMaker gives up on an answer after this long.
_PREDICT_TIMEOUT = 60.0
# DJL Serving's default, in seconds.
_MODEL_LOADING_TIMEOUT = 240.0
# Seconds that answers still have to be sent when nothing more is waited for. (To aiohttp, 0 is for ever.)
_CUT_OFF = 0.1
# The name of the only model of a server without a store.
_ONLY = "model"
# Objects, and collections of younger ones, after which each generation is collected: a request makes hardly any cycles.
_COLLECTED_AFTER = (20_000, 20, 20)
# What a frame holds beside the bodies.
_FRAME_ROOM = 1024 * 1024


class Server:
    """One server from its start to its end. Building it opens the sockets and raises StartError where it cannot.

    `template` is the control socket of one that was spawned already.
    """

    def __init__(self, settings: Settings, template: socket.socket | None = None) -> None:
        self.settings = settings
        self._first_template = template
        self._only_source = LocalSource(Path(settings.model).absolute()) if settings.model is not None else None
        if self._only_source is not None and not self._only_source.exists():
            raise StartError(f"The model is neither a directory nor an archive: {settings.model}")
        # What the only model is loaded into, where there is but one.
        self._only: Pool | None = None
        self.trust = policy(settings.trust)
        self._properties = keys.for_all(settings.model_properties)
        limits = UnpackLimits(settings.max_unpacked_size, settings.max_unpacked_files)
        try:
            self.archives = ArchiveCache(Path(settings.cache_dir), limits, size=settings.cache_size)
        except OSError as error:
            raise StartError(f"cache_dir {settings.cache_dir}: {error.strerror}") from error
        self.s3 = S3(
            S3Options(settings.s3_endpoint_url, settings.s3_region, settings.s3_profile, settings.s3_anonymous),
            settings.model_loading_timeout,
        )
        cached = CachedObjects(Path(settings.cache_dir), settings.s3_endpoint_url)
        self.objects = Objects(self.s3, cached, settings.s3_check_interval)
        self.store = store_of(settings.model_store, self.objects)
        self.inference = Listener(bind(settings.inference_address))
        shared = settings.management_address == settings.inference_address
        self.management = self.inference if shared else Listener(bind(settings.management_address))
        state = runfile.path(settings.state_dir, settings.management_address).with_suffix(".models")
        self.registrations = Registrations(state)
        directory = Path(settings.cache_dir, "environments")
        self._environment_store = EnvironmentStore(directory, settings.environments_size)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serves until it is told to stop, then finishes what was accepted; told again, it finishes nothing more."""
        told, told_again = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: told_again.set() if told.is_set() else told.set())
        await self.start()
        # What there is now stays, and no collection of garbage need look at it: 4 % of the CPU of a hot request.
        gc.freeze()
        gc.set_threshold(*_COLLECTED_AFTER)
        ready()
        await told.wait()
        await self.stop(told_again)

    async def start(self) -> None:
        settings = self.settings
        self.registry = Registry(self.store, self.objects, settings.load_models)
        self.log = EventLog()
        self.environments = self._environments()
        capacity = settings.max_request_size + _FRAME_ROOM
        limits = Limits()
        places = Places(settings.metrics_models)
        self.supervisor = Supervisor(
            self.environments,
            Preparation(
                partial(
                    prepare,
                    archives=self.archives,
                    trust=self.trust,
                    defaults=self._properties,
                    environments=settings.environments,
                ),
                self.archives.contents,
                self.log,
            ),
            model_defaults(settings, limits),
            log=self.log,
            limits=limits,
            memory_budget=settings.memory_budget or int(limits.memory * _MEMORY_BUDGET),
            channel_capacity=capacity,
            rollover_interval=settings.store_check_interval,
        )
        memory = self.supervisor.memory
        if memory.budget <= memory.used:
            logger.warning(
                "memory_budget is %.0f MiB, and the server itself needs about %.0f: no model gets a worker",
                memory.budget / MIB,
                memory.used / MIB,
            )
        slots = max(1, round(limits.cpus * _SLOTS_PER_CPU))
        self.dispatcher = Dispatcher(self.supervisor, capacity=capacity, slots=slots, stats_of=places.stats_of)
        self.supervisor.start(self.dispatcher)
        bodies = BodyReader(settings.max_request_size, settings.max_buffered_bytes)
        operations = Operations(
            self.registry,
            self.registrations,
            self.dispatcher,
            self.supervisor,
            self.log,
            drain_timeout=settings.drain_timeout,
        )
        await operations.restore()
        if self._only_source is not None:
            self._serve_only(self._only_source)
        self.freshness = Freshness(
            self.registry,
            operations,
            self.dispatcher,
            self.supervisor,
            self.log,
            self.s3,
            interval=settings.s3_check_interval,
        )
        self.freshness.start()
        overview = Overview(
            self.registry,
            self.dispatcher,
            self.supervisor,
            self.template,
            self.environments,
            {"inferenceAddress": self.inference.url, "managementAddress": self.management.url},
        )
        metrics = Metrics(places, lambda: map(ObservedQueue, self.dispatcher.queues), overview.figures)
        self.management_api = ManagementApi(
            operations, self.freshness, bodies, overview.status, ObservationApi(self.log, metrics)
        )
        sagemaker = SageMaker(
            request_timeout=settings.request_timeout, max_request_size=settings.max_request_size, cpus=limits.cpus
        )
        targets = Targets(Native(settings.request_timeout), sagemaker)
        self.lane = Lane(self.registry, self.dispatcher, Heads(targets), max_size=settings.max_request_size)
        self.api = InferenceApi(
            Asking(self.registry, self.dispatcher, bodies),
            targets,
            sagemaker,
            is_ready=lambda: self._only is None or self._only.proven,
            fallback=self.management_api.respond if self.management is self.inference else None,
        )
        await self.inference.start(self.api.handle, settings, self.lane if settings.http == "lane" else None)
        if self.management is not self.inference:
            await self.management.start(self.management_api.handle, settings)

    def _serve_only(self, source: Source) -> None:
        """Serves one model instead of a store, and keeps a worker for it: without it the server is of no use."""
        known = self.registry.get(_ONLY)
        if known is None or known.source != source:
            known = Model(_ONLY, source, registered=True, registered_with=ModelSettings(min_workers=1))
        self.registry.add_main(known)
        self._only = self.dispatcher.queue(known).pool
        self.supervisor.wake(self._only)

    async def stop(self, at_once: asyncio.Event) -> None:
        """Refuses new requests from the first moment, finishes those it has, then ends every process."""
        self.log.add("server_stopping", reason="finishing what was accepted", level=logging.INFO)
        self.lane.is_open = False
        self.api.draining = self.management_api.draining = True
        self.log.close()
        finishing = asyncio.create_task(self._finish())
        hurry = asyncio.create_task(at_once.wait())
        await asyncio.wait({finishing, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (finishing, hurry):
            task.cancel()
        await asyncio.gather(finishing, hurry, return_exceptions=True)
        for listener in {self.inference, self.management}:
            await listener.stop(_CUT_OFF)
        await self.freshness.stop()
        await self.supervisor.stop()
        logger.info("stopped")

    async def _finish(self) -> None:
        """Answers what was accepted, and lets clients read their answers, for as long as is allowed."""
        deadline = time.monotonic() + self.settings.drain_timeout
        if not await self.dispatcher.drain(self.settings.drain_timeout):
            logger.warning("requests were still unanswered after %s seconds", self.settings.drain_timeout)
        for listener in {self.inference, self.management}:
            # What is answered is still to be read by its client, who may be slow.
            await listener.stop(max(1.0, deadline - time.monotonic()))

    def _environments(self) -> Environments:
        settings = self.settings
        template = partial(
            Template,
            log=self.log,
            nice=settings.worker_nice,
            log_level=settings.log_level,
            environment=settings.worker_environment,
        )
        self.template = template(settings.preload, first=self._first_template)
        return Environments(
            self.template,
            self._environment_store,
            Installer(self._environment_store.downloads, offline=settings.environments_offline),
            lambda preload, interpreter: template(preload, interpreter=interpreter),
            self.log,
            preload=settings.preload,
            idle_time=settings.environment_idle_time,
        )


def run(
    settings: Settings,
    ready: Callable[[Server], None],
    template: socket.socket | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Runs a server in this process until it is told to stop. `ready` is called when it answers.

    `remarks` on the settings are the first that is in the log.
    """
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")
    for remark in remarks:
        logger.warning("%s", remark)
    # A worker takes four descriptors here, a connection one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    be_prompt()
    hide_from_workers()
    server = Server(settings, template)
    uvloop.run(server.run(lambda: ready(server)))
