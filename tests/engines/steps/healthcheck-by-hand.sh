# engines: podman
# shows: [1]
# shows: healthy

e run -d --name one --health-cmd 'test -f /tmp/ok' --health-retries 1 $image sleep 100 >/dev/null
e healthcheck run one; e exec one touch /tmp/ok; e healthcheck run one; e inspect --format '{{.State.Health.Status}}' one
