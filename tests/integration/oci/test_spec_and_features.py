"""``spec`` writes a config.json to begin with, ``features`` prints what is understood; ``--config`` names another."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout
from mydocker.oci import config as oci_config
from mydocker.oci import spec_
from mydocker.oci.log import Log
from mydocker.oci.main import Call


def test_spec_writes_a_config_that_runs(bundle: Any, ours: Any, cid: str, cgroup: str) -> None:
    made = bundle("true")
    (made / "config.json").unlink()
    assert ours("spec", "--bundle", made).returncode == 0
    config = oci_config.load(str(made))
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    config["process"].update(terminal=False, args=["/bin/sh", "-c", "echo $PPID; touch /x || hostname"])
    config["linux"]["cgroupsPath"] = f"{cgroup}/spec"
    (made / "config.json").write_text(json.dumps(config))
    done = ours.run(made, cid)
    assert done.stdout == "0\nmydocker\n", done
    assert "Read-only file system" in done.stderr


@pytest.mark.vm
def test_spec_has_a_cgroup_namespace_where_there_is_v2_alone(bundle: Any, ours: Any) -> None:
    """As with runc: on v1 its callers add one to what they get."""
    made = bundle("true")
    for options in ((), ("--rootless",)):
        (made / "config.json").unlink()
        assert ours("spec", "--bundle", made, *options).returncode == 0
        kinds = [entry["type"] for entry in json.loads((made / "config.json").read_text())["linux"]["namespaces"]]
        assert ("cgroup" in kinds) == (Layout.read().kind == "v2")


def test_spec_overwrites_nothing(bundle: Any, ours: Any) -> None:
    made = bundle("true")
    before = (made / "config.json").read_text()
    done = ours("spec", cwd=made)
    assert done.returncode == 1
    assert "File config.json exists. Remove it first" in done.stderr
    assert (made / "config.json").read_text() == before
    assert ours("spec", "-b", made / "nowhere").returncode == 1


def test_spec_of_a_plain_user_maps_him_to_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    call = Call(verb="spec", root="", log=Log(), options={"rootless": True, "bundle": str(tmp_path)})
    assert spec_.main(call) == 0
    config = oci_config.load(str(tmp_path))
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1234, "size": 1}]
    assert config["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 4321, "size": 1}]
    kinds = oci_config.namespaces(config)
    assert "user" in kinds
    assert "network" not in kinds
    assert "resources" not in config["linux"]


def features(ours: Any, **variables: str) -> Any:
    done = ours("features", env={**os.environ, **variables})
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_what_features_names_is_taken_in_a_config(ours: Any) -> None:
    found = features(ours)
    linux = found["linux"]
    config: dict[str, Any] = {"ociVersion": found["ociVersionMin"], "root": {"path": "rootfs"}}
    oci_config.validate(config)
    config["ociVersion"] = found["ociVersionMax"]
    config["hooks"] = {kind: [{"path": "/bin/true"}] for kind in found["hooks"]}
    ids = [{"containerID": 0, "hostID": 0, "size": 1}]
    config["linux"] = {
        "namespaces": [{"type": kind} for kind in linux["namespaces"]],
        "uidMappings": ids,
        "gidMappings": ids,
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": linux["seccomp"]["archs"],
            "flags": linux["seccomp"]["knownFlags"],
            "syscalls": [
                {
                    "names": ["mkdir"],
                    "action": action,
                    "args": [{"index": 0, "value": 0, "op": op} for op in linux["seccomp"]["operators"]],
                }
                for action in linux["seccomp"]["actions"]
            ],
        },
    }
    oci_config.validate(config)
    assert set(linux["seccomp"]["supportedFlags"]) <= set(linux["seccomp"]["knownFlags"])
    assert {"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"} <= set(linux["capabilities"])
    assert linux["cgroup"] == dict.fromkeys(("v1", "v2", "systemd", "systemdUser", "rdma"), True)
    assert "mydocker." in found["potentiallyUnsafeConfigAnnotations"]


def test_no_mount_option_of_features_is_left_to_the_file_system(ours: Any, bundle: Any, cid: str) -> None:
    """A file system that does not know an option refuses it."""
    together = set(features(ours)["mountOptions"]) - {"bind", "rbind", "remount", "idmap", "ridmap"}
    assert {"ro", "rro", "noatime", "rnosymfollow", "tmpcopyup", "rshared"} <= together
    made = bundle("true", mounts=[{"destination": "/etc", "type": "tmpfs", "source": "x", "options": sorted(together)}])
    done = ours.run(made, cid)
    assert done.returncode == 0, done


def test_rdma_is_limited_by_a_plugin_that_may_be_turned_off(ours: Any) -> None:
    assert features(ours, MYDOCKER_DISABLE_PLUGINS="rdma")["linux"]["cgroup"]["rdma"] is False


def test_another_config_by_its_name(bundle: Any, ours: Any, cid: str) -> None:
    made = bundle("echo", "this one")
    (made / "other").mkdir()
    (made / "config.json").rename(made / "other/config.json")
    for place in ("other/config.json", str(made / "other/config.json")):
        done = ours("run", "--config", place, "--bundle", made, cid)
        assert done.stdout == "this one\n", done
    assert ours("run", "--bundle", made, cid).returncode == 1


@pytest.mark.parametrize(("manager", "code"), [("cgroupfs", 0), ("disabled", 1)])
def test_cgroup_manager_by_its_name(manager: str, code: int, bundle: Any, ours: Any, cid: str) -> None:
    command = [*ours.command, "--cgroup-manager", manager, "--root", ours.root, "run", "--bundle", bundle("true"), cid]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done
