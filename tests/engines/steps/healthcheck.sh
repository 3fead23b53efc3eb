# engines: docker
# shows: unhealthy
# shows: \nhealthy

e run -d --name one --health-cmd 'test -f /tmp/ok' --health-interval 1s --health-retries 1 $image sleep 100 >/dev/null
until_has unhealthy e inspect --format '{{.State.Health.Status}}' one; e inspect --format '{{.State.Health.Status}}' one
e exec one touch /tmp/ok
until_has '^healthy' e inspect --format '{{.State.Health.Status}}' one; e inspect --format '{{.State.Health.Status}}' one
