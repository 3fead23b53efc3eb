"""A limit of a stranger's package under an engine: by annotation, by a place in config.json, watched, and undone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

PLUGIN = '''
import os
from mydocker import Amendment, LimitError, ResourceField, Verdict, Watch, hookimpl
from mydocker.resources import parse_duration

def from_oci(places):
    if not places.get("after"):
        raise ValueError("it needs an after")
    return places["after"] + "ms"

@hookimpl
def mydocker_fields():
    return [ResourceField(
        name="stop_after", flags=("--stop-after",), parse=parse_duration, metavar="TIME", help="Stop it.",
        oci="linux.resources.example", from_oci=from_oci,
    )]

@hookimpl
def mydocker_validate(config):
    if config["stop_after"] > 1000:
        raise LimitError("stop_after", "nobody waits that long")

@hookimpl
def mydocker_amend(config):
    return Amendment(env=(b"STOP_AFTER=%g" % config["stop_after"],))

@hookimpl
def mydocker_apply(cgroup, pid):
    note("apply")

@hookimpl
def mydocker_watch(config):
    looked = []
    def check():
        if looked:
            return Verdict.stop("late", "its time is over")
        looked.append(1)
        return config["stop_after"]
    return Watch(check=check)

@hookimpl
def mydocker_remove(cgroup):
    note("remove")

def note(word):
    with open(os.environ["NOTES"], "a") as file:
        file.write(word + "\\n")
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs the plugin for what is started from here; the file in which it notes what is called."""
    site = tmp_path / "site"
    info = site / "stopper-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "stopper.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stopper\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[mydocker.subsystems]\nstopper = stopper\n")
    notes = tmp_path / "notes"
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NOTES", str(notes))
    return notes


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {"mydocker.stop-after": "300ms"}},
        {"annotations": {"mydocker.stop_after": "300ms"}},
        {"linux__resources": {"example": {"after": "300"}}},
    ],
)
def test_it_stops_the_container_when_its_time_is_over(outside, ours, bundle, cid, changes):
    made = bundle("sh", "-c", "echo $STOP_AFTER; while :; do sleep 1; done", **changes)
    done = ours.run(made, cid)
    assert (done.returncode, done.stdout) == (137, "0.3\n")
    assert outside.read_text().split() == ["apply", "remove"]


def test_a_container_that_ends_by_itself_is_watched_no_more(outside, ours, bundle, cid, stopped):
    made = bundle("true", annotations={"mydocker.stop_after": "500s"})
    assert ours.create(made, cid).returncode == 0
    watchers = [
        int(name)
        for name in os.listdir("/proc")
        if name.isdecimal() and "mydocker-watch" in comm(name) and str(outside).encode() in environ(name)
    ]
    assert len(watchers) == 1
    assert ours("start", cid).returncode == 0
    stopped(ours, cid)
    assert ours("delete", cid).returncode == 0
    assert outside.read_text().split() == ["apply", "remove"]
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{watchers[0]}"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_limit_that_leaves_no_trace_has_nothing_to_be_undone(outside, ours, bundle, cid):
    plugin = outside.parent / "site" / "stopper.py"
    plugin.write_text(plugin.read_text().replace("from_oci=from_oci,", "from_oci=from_oci, traceless=True,"))
    made = bundle("true", annotations={"mydocker.stop_after": "500s"})
    assert ours.create(made, cid).returncode == 0
    assert ours("delete", "--force", cid).returncode == 0
    assert outside.read_text().split() == ["apply"]


def comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def environ(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": {"mydocker.stop-after": "soon"}}, 'annotation mydocker.stop-after: "soon" is not a duration'),
        ({"annotations": {"mydocker.stop-after": "3h"}}, "annotation mydocker.stop-after: nobody waits that long"),
        ({"linux__resources": {"example": {"x": 1}}}, "linux.resources.example: it needs an after"),
        ({"linux__resources": {"example": {"after": 5}}}, "plugin stopper (stopper 1.2) failed in the from_oci"),
    ],
)
def test_a_bad_value_fails_create_with_its_own_words(outside, ours, bundle, cid, changes, words):
    done = ours("create", "--bundle", bundle(**changes), cid)
    assert done.returncode == 1
    assert words in done.stderr.replace('\\"', '"')
    assert not outside.exists()
