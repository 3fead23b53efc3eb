"""Every typed file that this kernel has can be read."""

from __future__ import annotations

import pytest

from mydocker.cgroups import v1, v2

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(("version", "known"), [(1, v1.CONTROLLERS), (2, v2.CONTROLLERS)], ids=["v1", "v2"])
def test_all_files_of_all_controllers(layout, cgroup, version, known):
    names = [name for name in known if layout.version(name) == version]
    if not names or (layout.kind, version) == ("hybrid", 2):
        pytest.skip(f"containers have no v{version} controllers here")
    for name in names:
        controller = cgroup.controller(name)
        read = {
            key: getattr(controller, key)
            for key, interface in controller.list_interfaces().items()
            if not interface.writeonly and controller.has(interface.filename.decode())
        }
        assert "procs" in read
        assert isinstance(controller, known[name])
