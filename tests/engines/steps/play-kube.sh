# engines: podman
# shows: 1000
# shows: hello there
# shows: written
# shows: 67108864
# shows: 50000
# shows: \n0\n

cat >pod.yaml <<END
apiVersion: v1
kind: Pod
metadata: {name: played, labels: {app: test}}
spec:
  hostname: box
  restartPolicy: Never
  volumes: [{name: shared, hostPath: {path: $PWD/shared, type: Directory}}]
  containers:
  - name: writer
    image: $image
    imagePullPolicy: Never
    command: [sh, -c, 'id -u; echo written >/shared/file; grep Cap /proc/self/status; exec sleep 100']
    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: reader
    image: $image
    imagePullPolicy: Never
    env: [{name: GREETING, value: hello there}]
    command: [sh, -c, 'echo "\$GREETING"; hostname; sleep 100']
END
mkdir -p shared; chmod 777 shared
e play kube pod.yaml >/dev/null
until_has there e logs played-reader; e logs played-reader; until_has Cap e logs played-writer; e logs played-writer; cat shared/file
cgroup_file $(pid played-writer) memory memory.limit_in_bytes; cgroup_file $(pid played-writer) cpu cpu.cfs_quota_us
e ps --format '{{.Names}} {{.Status}}' | grep played- | sed 's/Up .*/Up/; s/.*-infra/infra/' | sort
e play kube --down pod.yaml >/dev/null; e ps --all --quiet | wc -l
