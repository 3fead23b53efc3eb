"""Limits of RDMA devices and of what the controller misc counts: most hosts have none, and say so."""

from __future__ import annotations

import os

import pytest

from mydocker import UnsupportedLimit
from subsystems import misc, rdma

pytestmark = pytest.mark.vm


def test_rdma(limited, layout, sleeper):
    limits = limited(rdma)
    adapters = rdma._devices()
    if layout.find("rdma") is None or not adapters:
        words = "this host has no RDMA device mlx5_9; there is none" if layout.find("rdma") else "no rdma controller"
        with pytest.raises(UnsupportedLimit, match=words) as caught:
            limits.prepare(rdma="mlx5_9 hca_handle=2")
        assert caught.value.field == "rdma"
        return
    config = limits.prepare(rdma=f"{adapters[0]} hca_handle=2")
    limits.attach(config, sleeper)
    assert limits.cgroup.controller("rdma").max[adapters[0]]["hca_handle"] == "2"


def test_misc(limited, layout, sleeper):
    limits = limited(misc)
    resources = [*misc._capacity(layout)] if layout.find("misc") else []
    if not resources:
        words = "this host has no resource sev for the controller misc" if layout.find("misc") else "no misc controller"
        with pytest.raises(UnsupportedLimit, match=words) as caught:
            limits.prepare(misc="sev=2")
        assert caught.value.field == "misc"
        return
    config = limits.prepare(misc=f"{resources[0]}=2")
    limits.attach(config, sleeper)
    assert limits.cgroup.controller("misc").max[resources[0]] == 2


@pytest.mark.parametrize("plugin", [rdma, misc], ids=["rdma", "misc"])
def test_accounting_makes_no_cgroup_for_nothing(limited, layout, plugin):
    """Where there is nothing to count."""
    limits = limited(plugin)
    limits.account()
    if layout.find(plugin.__name__.rpartition(".")[2]) is None or not os.path.isdir("/sys/class/infiniband"):
        assert limits.usage({}) == {}
