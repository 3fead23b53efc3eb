# engines: docker
# shows: composed
# shows: 100\nx\n
# shows: 52428800
# shows: 2\n0\n

cat >docker-compose.yml <<END
version: "2.4"
services:
  web:
    image: $image
    command: [sh, -c, 'echo composed >/tmp/index.html; exec httpd -f -p 80 -h /tmp']
    mem_limit: 50m
    cpus: 0.5
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    read_only: true
    tmpfs: [/tmp]
    init: true
  client:
    image: $image
    command: [sh, -c, 'until wget -q -O - http://web/; do sleep .1; done 2>/dev/null; sleep 100']
    depends_on: [web]
    ulimits: {nofile: 100}
    volumes: ["kept:/kept"]
volumes: {kept: {}}
END
docker-compose --no-ansi --project-name project up -d >/dev/null 2>&1
until_has composed docker-compose --project-name project logs client
docker-compose --project-name project logs --no-color client | grep -o composed
docker-compose --project-name project exec -T client sh -c 'ulimit -n; touch /kept/x && ls /kept'
cgroup_file $(pid project_web_1) memory memory.limit_in_bytes; e exec project_web_1 grep CapEff /proc/self/status
docker-compose --project-name project ps --quiet | wc -l
docker-compose --project-name project down --volumes --timeout 1 >/dev/null 2>&1; e ps --all --quiet | wc -l
