from __future__ import annotations

from pathlib import Path

from mydocker.mounts import heat_of_cpus


def test_the_heat_of_each_cpu_is_masked_where_the_kernel_tells_it(tmp_path: Path) -> None:
    assert heat_of_cpus(str(tmp_path)) == []
    for name in ("cpu0", "cpu1", "cpu10", "cpufreq", "cpuidle"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    below = str(tmp_path).lstrip("/")
    expected = {f"{below}/cpu{number}/thermal_throttle".encode() for number in (0, 1, 10)}
    assert set(heat_of_cpus(str(tmp_path))) == expected
