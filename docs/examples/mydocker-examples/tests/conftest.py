# The fixtures of mydocker.testing: limit_journey, cgroup_v1, cgroup_v2, run_container and others.
pytest_plugins = ["mydocker.testing.pytest_plugin"]
