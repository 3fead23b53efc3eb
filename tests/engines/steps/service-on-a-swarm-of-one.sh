# engines: docker
# shows: s 2/2
# shows: serving 1
# shows: 41943040\n41943040
# shows: 52428800

e swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377 >/dev/null
e service create --detach --name s --network host --replicas 2 --limit-memory 40m --limit-pids 30 --env A=1 --user alice --cap-drop ALL \
    --restart-condition on-failure --stop-grace-period 1s $image sh -c 'echo serving $A; id -u; grep CapEff /proc/self/status; sleep 100' >/dev/null
until_has 2/2 e service ls; e service ls --format '{{.Name}} {{.Replicas}}'
until_has 'CapEff.*CapEff' sh -c 'echo $(docker service logs --raw s)'; e service logs --raw s | sort
for c in $(e ps --quiet --filter label=com.docker.swarm.service.name=s); do cgroup_file $(pid $c) memory memory.limit_in_bytes; done
e service scale --detach s=1 >/dev/null; until_has 1/1 e service ls
until_has '^1$' sh -c 'docker ps --quiet | wc -l'
e service update --detach --limit-memory 50m s >/dev/null; until_has completed e service inspect --format '{{.UpdateStatus.State}}' s
for c in $(e ps --quiet --filter label=com.docker.swarm.service.name=s); do cgroup_file $(pid $c) memory memory.limit_in_bytes; done
e service rm s >/dev/null; until_has '^0$' sh -c 'docker ps --all --quiet | wc -l'; e swarm leave --force
