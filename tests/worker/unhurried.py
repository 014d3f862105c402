"""Settings of property-based tests: a machine that runs other things as well is slow at times, and that is no bug."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
