from __future__ import annotations

from pathlib import Path

import pytest

from mydocker import mounts, waiting
from mydocker.linux import batch
from mydocker.linux.thermal import heat_of_cpus
from mydocker.plan import Plan
from mydocker.spec import Spec
from mydocker.user import User


def test_the_heat_of_each_cpu_is_masked_where_the_kernel_tells_it(tmp_path: Path) -> None:
    assert heat_of_cpus(str(tmp_path)) == []
    for name in ("cpu0", "cpu1", "cpu10", "cpufreq", "cpuidle"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    below = str(tmp_path).lstrip("/")
    expected = {f"{below}/cpu{number}/thermal_throttle".encode() for number in (0, 1, 10)}
    assert set(heat_of_cpus(str(tmp_path))) == expected


def test_hosts_have_any_number_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    few = len(mounts._Protection())
    paths = [b"sys/devices/system/cpu/cpu%d/thermal_throttle" % number for number in range(2000)]
    monkeypatch.setattr(mounts, "heat_of_cpus", lambda: paths)
    assert len(mounts._Protection()) >= few + len(paths)
    if batch.code_page():
        spec = Spec(args=(b"true",), rootfs="/")
        plan = Plan(spec=spec, staging="", hierarchies=(), user=User(), capabilities=0, cwd="/", blank=True)
        table = waiting.made(plan)
        assert table.groundwork > few + len(paths)
        table.close()
