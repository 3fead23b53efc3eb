import pytest
from mydocker_examples import private_tmp

from mydocker import ConflictError, LimitError, Tmpfs


def test_it_adds_a_mount_and_a_variable(limit_journey):
    with limit_journey(private_tmp, private_tmp="64m") as container:
        assert container.spec.mounts == (Tmpfs(destination="/tmp", size=64 << 20),)
        assert b"TMPDIR=/tmp" in container.spec.extra_env


def test_the_user_has_a_mount_there(limit_journey):
    with pytest.raises(ConflictError, match="mount on /tmp"):
        limit_journey(private_tmp, private_tmp="64m", mounts=(Tmpfs(destination="/tmp"),))


def test_nothing(limit_journey):
    with pytest.raises(LimitError, match="--private-tmp: 0 is no limit"):
        limit_journey(private_tmp, private_tmp="0")


def test_a_real_container(run_container):
    result = run_container(["sh", "-c", "head -c 2m /dev/zero >/tmp/file; ls -A $TMPDIR"], private_tmp="1m", cwd="/")
    assert (result.stdout, "No space left" in result.stderr) == ("file\n", True)
