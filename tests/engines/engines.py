"""Podman, Docker and containerd from Debian, each in a pen of its own with one runtime."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pen import HERE, Pen

IMAGE = "localhost/busybox:latest"

#: Bash in which steps are written. A command that fails shows its exit code in brackets.
PRELUDE = r"""
trap 'echo "[$?]"' ERR
rm -rf {scratch}/step; mkdir {scratch}/step; cd {scratch}/step
look=$(cat {here}/look)
image={image} runtime={runtime} mydocker={mydocker}
# Type lines into a command of the engine: typed LINES ARGUMENTS...
typed() {{ local lines=$1; shift; {here}/type-in "$lines" "${{ENGINE[@]}}" "$@"; }}
# Repeat a command, quietly, until its output has the text.
until_has() {{
    local text=$1 tries=0; shift
    until "$@" 2>&1 | grep -q -e "$text"; do
        [ $((tries += 1)) -lt 200 ] || {{ echo "never showed $text: $*"; "$@"; return 1; }}
        sleep 0.1
    done
}}
# A file of a container's cgroup: cgroup_file PID CONTROLLER FILE
cgroup_file() {{
    local path
    path=$(sed -n "s/^[0-9]*:$2:\/*//p" /proc/$1/cgroup) &&
    cat "/sys/fs/cgroup/$2/$path/$3"
}}
# Docker gives all capabilities, and runc refuses those that this machine does not have itself.
refused_by_runc() {{ [ "$ENGINE" = docker ] && ! grep -q 'CapBnd:.*1ffffffffff' /proc/self/status; }}
{engine}
"""


@dataclass(frozen=True)
class Runtime:
    name: str
    path: str


class Engine:
    """An engine that runs. Its ``observe`` runs one step and says what was seen."""

    name = ""
    #: Shell functions of the steps: ``e`` is the engine's command line, ``pid`` a container's first process.
    functions = ""

    def __init__(self, pen: Pen, scratch: Path, runtime: Runtime, image: Path) -> None:
        self.pen, self.scratch, self.runtime = pen, scratch, runtime
        self.start(image)
        self.before = pen.snapshot()

    def start(self, image: Path) -> None:
        raise NotImplementedError

    def observe(self, script: str) -> str:
        """The transcript of a step, with what differs from run to run replaced by a name."""
        mydocker = Path(sys.executable).with_name("mydocker")
        known = {"scratch": self.scratch, "image": IMAGE, "runtime": self.runtime.path, "here": HERE}
        prelude = PRELUDE.format(engine=self.functions, mydocker=mydocker, **known)
        output = self.pen.run("timeout", "--kill-after=5", "80", "bash", "-c", prelude + script, check=False).stdout
        return self.normal(output)

    def normal(self, text: str) -> str:
        text = text.replace(str(self.scratch), "SCRATCH").replace(self.runtime.path, "RUNTIME")
        text = re.sub(rf"\b{self.runtime.name}\b", "RUNTIME", text)
        return re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "ID", text)

    def left_behind(self) -> list[str]:
        """What is there that was not there before the step, after a moment to clean up."""
        end = time.monotonic() + 5
        while True:
            now = self.pen.snapshot()
            left = now - self.before
            if not left or time.monotonic() > end:
                self.before = now
                return [self.normal(thing) for thing in left]
            time.sleep(0.1)

    def wait_for_server(self, server: subprocess.Popen[bytes], log: Path, is_up: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_up():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not come up:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)


class Podman(Engine):
    name = "podman"
    functions = """
ENGINE=podman
e() { podman "$@"; }
pid() { podman inspect --format '{{.State.Pid}}' "$1"; }
remove_all() {
    { podman pod rm --all --force; podman rm --all --force --time 0; podman volume prune --force; } >/dev/null
}
"""

    def start(self, image: Path) -> None:
        conf = self.scratch / "containers.conf"
        conf.write_text(f"""
[containers]
# Hard limits cannot be raised everywhere.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{self.runtime.name}"
# Podman asks for errors as JSON by the runtime's name.
runtime_supports_json = ["{self.runtime.name}"]
volume_path = "{self.scratch}/volumes"
[engine.runtimes]
{self.runtime.name} = ["{self.runtime.path}"]
[network]
network_backend = "netavark"
network_config_dir = "{self.scratch}/networks"
""")
        storage = self.scratch / "storage.conf"
        storage.write_text(f"""
[storage]
driver = "overlay"
graphroot = "{self.scratch}/graph"
runroot = "/run/containers/storage"
""")
        # There is no systemd in a pen, whose timers would run health checks.
        self.pen.environment |= {
            "CONTAINERS_CONF": str(conf),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "DISABLE_HC_SYSTEMD": "true",
        }
        self.pen.run("podman", "load", "--quiet", "--input", image)
        # The first container makes what stays: locks in memory, the mount of the graph.
        self.pen.run("podman", "run", "--rm", IMAGE, "true", check=False)


class Docker(Engine):
    name = "docker"
    functions = """
ENGINE=docker
e() { docker "$@"; }
pid() { docker inspect --format '{{.State.Pid}}' "$1"; }
remove_all() {
    { docker ps --all --quiet | xargs --no-run-if-empty docker rm --force; docker volume prune --force; } >/dev/null
}
"""

    def start(self, image: Path) -> None:
        config = self.scratch / "daemon.json"
        runtimes = {} if self.runtime.name == "runc" else {self.runtime.name: {"path": self.runtime.path}}
        config.write_text(
            json.dumps(
                {
                    "runtimes": runtimes,
                    "default-runtime": self.runtime.name,
                    "data-root": str(self.scratch / "data"),
                    "exec-root": "/run/docker",
                    "pidfile": "/run/docker.pid",
                    "hosts": ["unix:///run/docker.sock"],
                    "log-level": "warn",
                }
            )
        )
        log = self.scratch / "dockerd.log"
        server = self.pen.start("dockerd", "--config-file", config, log=log)
        self.pen.environment |= {"DOCKER_HOST": "unix:///run/docker.sock", "DOCKER_CONFIG": str(self.scratch)}
        self.wait_for_server(server, log, lambda: self.pen.run("docker", "version", check=False).returncode == 0)
        self.pen.run("docker", "load", "--quiet", "--input", image)
        # The first container on the host's network makes a mount that stays.
        self.pen.run("docker", "run", "--rm", "--network=host", IMAGE, "true", check=False)


class Containerd(Engine):
    name = "containerd"
    functions = """
ENGINE=(ctr --address /run/containerd/containerd.sock)
e() { "${ENGINE[@]}" "$@"; }
run() { local flags=(); while [[ $1 == -* ]]; do flags+=("$1"); shift; done
    e run --runc-binary "$runtime" "${flags[@]}" "$image" "$@"; }
pid() { e task ls | awk -v name="$1" '$1 == name { print $2 }'; }
remove_all() {
    for task in $(e task ls --quiet); do e task kill --signal KILL "$task"; e task rm --force "$task"; done
    for container in $(e container ls --quiet); do e container rm "$container"; done
} >/dev/null 2>&1
"""

    def start(self, image: Path) -> None:
        config = self.scratch / "containerd.toml"
        config.write_text(f"""
version = 2
root = "{self.scratch}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/containerd/containerd.sock"
[debug]
level = "warn"
""")
        log = self.scratch / "containerd.log"
        server = self.pen.start("containerd", "--config", config, log=log)
        ctr = ("ctr", "--address", "/run/containerd/containerd.sock")
        self.wait_for_server(server, log, lambda: self.pen.run(*ctr, "version", check=False).returncode == 0)
        self.pen.run(*ctr, "image", "import", image)
        self.pen.run(*ctr, "run", "--rm", "--runc-binary", self.runtime.path, IMAGE, "first", "true", check=False)


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Podman, Docker, Containerd)}


def write_image(busybox: Path, archive: Path) -> None:
    """An archive as ``docker save`` makes it, of one layer: busybox under all of its names, and a user alice."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "dev", "etc", "home", "home/alice", "proc", "root", "sys", "tmp", "var"):
            _add(tar, directory, tarfile.DIRTYPE, mode=0o1777 if directory == "tmp" else 0o755)
        _add(tar, "bin/busybox", content=busybox.read_bytes(), mode=0o755)
        _add(tar, "bin/not-executable", content=b"#!/bin/sh\n")
        applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, target="busybox")
        _add(tar, "etc/passwd", content=b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
        _add(tar, "etc/group", content=b"root:x:0:\nalice:x:1000:\naudio:x:29:alice\n")
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "history": [{"created_by": "busybox"}],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, name, content=config)
        _add(tar, "layer.tar", content=layer.getvalue())
        _add(tar, "manifest.json", content=json.dumps(manifest).encode())


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    content: bytes = b"",
    mode: int = 0o644,
    target: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.size = kind, mode, target, len(content)
    tar.addfile(member, io.BytesIO(content))
