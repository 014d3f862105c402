"""What a process may use is what the tightest of its control groups leaves it, in whatever way a host has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mmserve.supervision.limits import Limits

MIB = 1 << 20
# What version 1 says of a group without a limit: the largest number of pages of 4 KiB.
UNLIMITED = 9223372036854771712

# Seconds for which a process of a test may run.
_PATIENCE = 20.0

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_SYSTEMD = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def write_host(root: Path, groups: str, mounts: list[str], files: dict[str, str]) -> Limits:
    """The limits on a host with these lines in /proc and these files below /sys/fs/cgroup."""
    table = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts) + "\n"}
    for name, text in (table | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(text))
    return Limits(root)


def memory_v2(group: str, limit: int | str, used: int = 0, cache: int = 0) -> dict[str, str]:
    return {
        f"{group}/memory.max": f"{limit}\n",
        f"{group}/memory.current": f"{used}\n",
        f"{group}/memory.stat": f"anon {used}\nfile {cache}\nactive_file 7\ninactive_file {cache}\nslab 9\n",
    }


def memory_v1(group: str, limit: int, used: int = 0, cache: int = 0) -> dict[str, str]:
    return {
        f"{group}/memory.limit_in_bytes": f"{limit}\n",
        f"{group}/memory.usage_in_bytes": f"{used}\n",
        f"{group}/memory.stat": f"cache 1\ninactive_file 5\ntotal_cache {cache}\ntotal_inactive_file {cache}\n",
    }


def cpu_v1(group: str, quota: int) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


def is_what_the_host_has(limits: Limits) -> bool:
    """No limit of any group counts."""
    return (
        limits.cpus == len(os.sched_getaffinity(0))
        and limits.memory == psutil.virtual_memory().total
        # Of a machine that others use at the same time; every limit in these tests is far lower.
        and limits.available_memory() > psutil.virtual_memory().available / 2
    )


def test_a_group_of_version_2_limits_cpus_and_memory(tmp_path: Path) -> None:
    files = {"mine/cpu.max": "50000 100000\n", **memory_v2("mine", 64 * MIB, used=40 * MIB, cache=10 * MIB)}
    limits = write_host(tmp_path, "0::/mine\n", [V2], files)
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.5, 64 * MIB, 34 * MIB)


def test_a_tighter_group_above_counts(tmp_path: Path) -> None:
    files = {
        "a.slice/cpu.max": "25000 100000\n",
        "a.slice/b.service/cpu.max": "75000 100000\n",
        **memory_v2("a.slice", 64 * MIB, used=60 * MIB),
        **memory_v2("a.slice/b.service", 96 * MIB, used=MIB),
    }
    limits = write_host(tmp_path, "0::/a.slice/b.service\n", [V2], files)
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.25, 64 * MIB, 4 * MIB)


def test_each_group_above_may_be_the_one_that_has_least_left(tmp_path: Path) -> None:
    """It need not be the one with the lowest limit: others use what is above."""
    files = {
        **memory_v2("a", 96 * MIB, used=95 * MIB),
        **memory_v2("a/b", "max", used=80 * MIB),
        **memory_v2("a/b/c", 64 * MIB, used=MIB),
    }
    limits = write_host(tmp_path, "0::/a/b/c\n", [V2], files)
    assert (limits.memory, limits.available_memory()) == (64 * MIB, MIB)


def test_a_group_beside_ours_does_not_count(tmp_path: Path) -> None:
    files = {"other/cpu.max": "50000 100000\n", "mine/below/cpu.max": "50000 100000\n", **memory_v2("other", MIB)}
    assert is_what_the_host_has(write_host(tmp_path, "0::/mine\n", [V2], files))


def test_in_a_cgroup_namespace_the_mount_is_our_own_group(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000\n", **memory_v2(".", 64 * MIB, used=32 * MIB)}
    limits = write_host(tmp_path, "0::/\n", [V2], files)
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.5, 64 * MIB, 32 * MIB)


@pytest.mark.parametrize("group", ["/docker/3f5a", "/docker/3f5a/below"])
def test_in_a_container_without_a_namespace_the_path_is_the_hosts(tmp_path: Path, group: str) -> None:
    files = {"cpu.max": "50000 100000\n", **memory_v2(".", 64 * MIB)}
    limits = write_host(tmp_path, f"0::{group}\n", [V2.replace(" / ", " /docker/3f5a ")], files)
    assert (limits.cpus, limits.memory) == (0.5, 64 * MIB)


@pytest.mark.parametrize(("mounted", "group"), [("/docker/3f5a", "/"), ("/..", "/"), ("/pods/1", "/pods/2")])
def test_a_mount_without_our_path_is_taken_for_our_own_group(tmp_path: Path, mounted: str, group: str) -> None:
    files = {"cpu.max": "50000 100000\n", **memory_v2(".", 64 * MIB)}
    limits = write_host(tmp_path, f"0::{group}\n", [V2.replace(" / ", f" {mounted} ")], files)
    assert (limits.cpus, limits.memory) == (0.5, 64 * MIB)


def test_a_mount_of_a_strangers_group_does_not_count_beside_one_that_has_ours(tmp_path: Path) -> None:
    stranger = "50 23 0:26 /docker/other /sys/fs/cgroup/elsewhere rw - cgroup2 cgroup2 rw"
    files = {"mine/cpu.max": "50000 100000\n", "elsewhere/cpu.max": "10000 100000\n"}
    assert write_host(tmp_path, "0::/mine\n", [stranger, V2], files).cpus == 0.5


@pytest.mark.parametrize("mounted", ["/", "/docker/3f5a"])
def test_outside_its_own_namespace_a_process_knows_no_limit(tmp_path: Path, mounted: str) -> None:
    """Neither what is mounted nor what the path leads to, outside the mount, is its group."""
    files = {"cpu.max": "50000 100000\n", "../other/cpu.max": "25000 100000\n", **memory_v2(".", MIB)}
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    assert is_what_the_host_has(write_host(tmp_path, "0::/../other\n", [V2.replace(" / ", f" {mounted} ")], files))


def test_each_controller_of_version_1_has_a_group_of_its_own(tmp_path: Path) -> None:
    files = {
        **cpu_v1("cpu,cpuacct", -1),
        **cpu_v1("cpu,cpuacct/jobs", 50_000),
        **cpu_v1("cpu,cpuacct/jobs/mine", 75_000),
        **memory_v1("memory", UNLIMITED, used=300 * MIB),
        **memory_v1("memory/mine", 64 * MIB, used=40 * MIB, cache=10 * MIB),
        # Groups of these names in the other hierarchy are somebody else's.
        **cpu_v1("cpu,cpuacct/mine", 10_000),
        **memory_v1("memory/jobs/mine", MIB),
    }
    limits = write_host(tmp_path, "4:memory:/mine\n1:cpu,cpuacct:/jobs/mine\n", [V1_CPU, V1_MEMORY], files)
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.5, 64 * MIB, 34 * MIB)


def test_a_hybrid_host_has_limits_of_both_versions(tmp_path: Path) -> None:
    files = {"unified/app/cpu.max": "50000 100000\n", **memory_v1("memory", 64 * MIB, used=MIB)}
    groups = "4:memory:/mine\n1:name=systemd:/app\n0::/app\n"
    # Of the memory hierarchy alone a container's own group is mounted.
    mounts = [V1_SYSTEMD, V1_MEMORY.replace(" / ", " /docker/3f5a "), UNIFIED]
    limits = write_host(tmp_path, groups, mounts, files)
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.5, 64 * MIB, 63 * MIB)


@pytest.mark.parametrize(("quota", "limit"), [("max", "max"), ("100000000", 1 << 60)])
def test_groups_without_limits_leave_what_the_host_has(tmp_path: Path, quota: str, limit: int | str) -> None:
    files = {
        "unified/cpu.max": f"{quota} 100000\n",
        **memory_v2("unified", limit, used=MIB),
        **cpu_v1("cpu,cpuacct", -1),
        **memory_v1("memory", UNLIMITED, used=MIB),
    }
    groups = "4:memory:/\n1:cpu,cpuacct:/\n0::/\n"
    assert is_what_the_host_has(write_host(tmp_path, groups, [V1_CPU, V1_MEMORY, UNIFIED], files))


def test_the_affinity_counts_too(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    limits = write_host(tmp_path, "0::/\n", [V2], {"cpu.max": "150000 100000\n"})
    os.sched_setaffinity(0, {min(before)})
    try:
        assert limits.cpus == 1
    finally:
        os.sched_setaffinity(0, before)
    assert limits.cpus == min(len(before), 1.5)


def test_the_smallest_quota_leaves_something_to_divide_by(tmp_path: Path) -> None:
    assert 0.001 < write_host(tmp_path, "0::/\n", [V2], {"cpu.max": "1 1000000\n"}).cpus < 0.05


def test_limits_that_change_are_seen(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000\n", **memory_v2(".", "max", used=MIB)}
    limits = write_host(tmp_path, "0::/\n", [V2], files)
    assert is_what_the_host_has(limits)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{8 * MIB}\n")
    assert (limits.cpus, limits.memory, limits.available_memory()) == (0.5, 8 * MIB, 7 * MIB)


@pytest.mark.parametrize(("used", "cache", "left"), [(9, 0, 0), (1, 2, 8)])
def test_what_is_left_is_between_nothing_and_the_limit(tmp_path: Path, used: int, cache: int, left: int) -> None:
    """A group may be over its limit; and usage and statistics, read one after the other, need not agree."""
    limits = write_host(tmp_path, "0::/\n", [V2], memory_v2(".", 8 * MIB, used * MIB, cache * MIB))
    assert limits.available_memory() == left * MIB


@pytest.mark.parametrize("missing", ["memory.current", "memory.stat"])
def test_a_memory_limit_holds_though_its_usage_is_not_known(tmp_path: Path, missing: str) -> None:
    limits = write_host(tmp_path, "0::/\n", [V2], memory_v2(".", 8 * MIB, used=2 * MIB, cache=MIB))
    (tmp_path / "sys/fs/cgroup" / missing).unlink()
    assert limits.available_memory() == {"memory.current": 8 * MIB, "memory.stat": 6 * MIB}[missing]


def test_names_with_spaces_colons_backslashes_and_line_ends_are_found(tmp_path: Path) -> None:
    mount = r"30 23 0:26 /a\040b\134x2d /sys/fs/cgroup/m\040n rw - cgroup2 cgroup2 rw"
    files = {"m n/c:d\x0be/cpu.max": "50000 100000\n"}
    assert write_host(tmp_path, "0::/a b\\x2d/c:d\x0be\n", [mount], files).cpus == 0.5


NONSENSE = ["", "\n", "nonsense\n", "0\n", "-1\n", "1_0\n", "5e4\n", "9" * 5000 + "\n", "\0\0\n", "٣\n", "1 2 3\n"]


@pytest.mark.parametrize("text", [*NONSENSE, "50000 0\n", "0 100000\n", "-50000 100000\n", "nan inf\n", "5e4 1e5\n"])
def test_limits_that_make_no_sense_are_none(tmp_path: Path, text: str) -> None:
    files = {
        **memory_v2("unified", text),
        "unified/cpu.max": text,
        "memory/memory.limit_in_bytes": text,
        **cpu_v1("cpu,cpuacct", 50_000) | {"cpu,cpuacct/cpu.cfs_period_us": text},
        **cpu_v1("cpu,cpuacct/mine", 50_000) | {"cpu,cpuacct/mine/cpu.cfs_quota_us": text},
    }
    groups = "4:memory:/\n1:cpu,cpuacct:/mine\n0::/\n"
    assert is_what_the_host_has(write_host(tmp_path, groups, [V1_CPU, V1_MEMORY, UNIFIED], files))


@pytest.mark.parametrize(
    ("groups", "mount"),
    [
        ("", V2),
        ("0\n0:\n:::\n\n", V2),
        ("0::\n", "- - -\n - cgroup2\n1 2 3 - cgroup2 cgroup2 rw"),
        ("0::/\n", "30 23 0:26 / /sys/\\000 rw - cgroup2 cgroup2 rw"),
        ("0::/\n", "30 23 0:26 / /sys/\\777\\700 rw - cgroup2"),
        ("0::/" + "x" * 5000 + "\n", "30 23 0:26 / /nowhere rw - cgroup2 cgroup2 rw"),
        ("0::/\n", "30 23 0:26 / /sys/fs/cgroup rw - tmpfs cgroup2 rw"),
        ("7:cpu:/\n", V2),
        ("0::/\udcff\udcfe\n", "\udc80 \udc81 - cgroup2 \udcff"),
    ],
)
def test_tables_that_make_no_sense_say_of_no_limit(tmp_path: Path, groups: str, mount: str) -> None:
    files = {"cpu.max": "50000 100000\n", **memory_v2(".", MIB)}
    assert is_what_the_host_has(write_host(tmp_path, groups, [mount], files))


def test_without_proc_and_sys_there_is_what_the_host_has(tmp_path: Path) -> None:
    assert is_what_the_host_has(Limits(tmp_path))


def test_a_group_that_has_gone_limits_nothing(tmp_path: Path) -> None:
    limits = write_host(tmp_path, "0::/\n", [V2], {"cpu.max": "50000 100000\n", **memory_v2(".", 8 * MIB)})
    for file in (tmp_path / "sys/fs/cgroup").iterdir():
        file.unlink()
    assert is_what_the_host_has(limits)


def test_of_the_real_host_nothing_is_promised_that_it_does_not_have() -> None:
    limits = Limits()
    assert 0 < limits.cpus <= len(os.sched_getaffinity(0))
    assert 0 < limits.memory <= psutil.virtual_memory().total
    assert 0 < limits.available_memory() <= limits.memory


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    """A real group without a quota, below one that has half a CPU."""
    version_1 = Path("/sys/fs/cgroup/cpu")
    above = (version_1 if version_1.exists() else version_1.parent) / f"mmserve-test-{os.getpid()}"
    try:
        above.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        quota = {above / "cpu.max": "50000 100000", above / "cpu.cfs_quota_us": "50000"}
        file = next((file for file in quota if file.exists()), None)
        if file is None:
            pytest.skip(f"no CPU controller for groups in {above.parent}")
        file.write_text(quota[file])
        (below := above / "below").mkdir()
        try:
            yield below
        finally:
            below.rmdir()
    finally:
        above.rmdir()


def test_a_quota_that_the_kernel_enforces_is_found(cpu_group: Path) -> None:
    code = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()));"
        "from mmserve.supervision.limits import Limits; print(Limits().cpus)"
    )
    command = [sys.executable, "-c", code, str(cpu_group)]
    assert float(subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE).stdout) == 0.5
