"""The sentences about user namespaces that a plain user cannot make."""

from __future__ import annotations

import errno

import pytest

from mydocker.rootless import refusals

SYSCTLS = {
    "user.max_user_namespaces": "15000",
    "kernel.unprivileged_userns_clone": "",
    "kernel.apparmor_restrict_unprivileged_userns": "",
}


@pytest.fixture
def sysctls(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = dict(SYSCTLS)
    monkeypatch.setattr(refusals, "_sysctl", values.__getitem__)
    return values


@pytest.mark.parametrize(
    ("name", "value", "number", "says"),
    [
        ("user.max_user_namespaces", "0", errno.ENOSPC, "sysctl -w user.max_user_namespaces=15000"),
        ("user.max_user_namespaces", "7", errno.ENOSPC, "as many namespaces as the sysctl user.max_user_namespaces"),
        ("kernel.unprivileged_userns_clone", "0", errno.EPERM, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", errno.EPERM, "AppArmor profile"),
        ("kernel.unprivileged_userns_clone", "1", errno.EPERM, "Docker's seccomp profile"),
        ("kernel.unprivileged_userns_clone", "1", errno.EINVAL, "CONFIG_USER_NS"),
        ("kernel.unprivileged_userns_clone", "1", errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_refused_clone(sysctls: dict[str, str], name: str, value: str, number: int, says: str) -> None:
    sysctls[name] = value
    error = str(refusals.clone_refused(OSError(number, "Cannot allocate memory")))
    assert error.startswith("cannot make a user namespace: ")
    assert says in error


def test_a_step_that_apparmor_refuses(sysctls: dict[str, str]) -> None:
    assert refusals.set_up_refused("cannot mount /dev", errno.EPERM) == ""
    sysctls["kernel.apparmor_restrict_unprivileged_userns"] = "1"
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in refusals.set_up_refused("cannot x", errno.EPERM)
    assert refusals.set_up_refused("cannot x", errno.ENOENT) == ""


def test_id_maps_that_apparmor_refuses(sysctls: dict[str, str]) -> None:
    sysctls["kernel.apparmor_restrict_unprivileged_userns"] = "1"
    error = OSError(errno.EPERM, "Operation not permitted", "/proc/7/uid_map")
    assert str(refusals.clone_refused(error)).startswith("cannot map the ids of the container: Operation not permitted")
