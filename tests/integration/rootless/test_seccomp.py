"""The filter of system calls of a plain user's container, which no_new_privs makes possible (seccomp(2))."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_dockers_profile_is_in_force(user: Any) -> None:
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true 2>/dev/null || echo refused"
    for options in ([], ["--init"], ["--security-opt", "no-new-privileges=false"]):
        result = user.run(*options, "sh", "-c", script)
        expected = "01"["false" not in "".join(options)]
        assert result.stdout == f"NoNewPrivs:\t{expected}\nSeccomp:\t2\nrefused\n", result.stderr


def test_a_capability_lets_its_system_calls_through(user: Any) -> None:
    assert user.run("unshare", "-m", "true").returncode != 0
    assert user.run("--cap-add", "SYS_ADMIN", "unshare", "-m", "true").returncode == 0


def test_unconfined_privileged_and_a_profile_of_ones_own(user: Any) -> None:
    for options in (["--security-opt", "seccomp=unconfined"], ["--privileged"]):
        assert user.run(*options, "grep", "^Seccomp:", "/proc/self/status").stdout == "Seccomp:\t0\n"
    profile: Path = user.home / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    assert user.run("--security-opt", f"seccomp={profile}", "mkdir", user.home / "made").returncode == 1
    assert user.run("mkdir", user.home / "made").returncode == 0
