# engines: podman docker
# shows: built by 1000
# shows: [12

mkdir -p context; echo copied >context/file
cat >context/Dockerfile <<END
FROM $image
ENV A=1
COPY file /file
RUN cat /file && mkdir /made && chown alice /made
USER alice
WORKDIR /made
RUN echo "built by \$(id -u) \$A \$(cat /proc/self/status | grep CapEff)" >here
CMD cat here
END
export DOCKER_BUILDKIT=0
e build --network none --tag localhost/made context >out 2>&1 || cat out
e run --rm localhost/made
e run --rm localhost/made cat /proc/self/mountinfo | grep -c ' / / '
printf 'FROM %s\nRUN exit 3\n' $image >context/Dockerfile
e build --network none context >out 2>&1 || echo "[12]"; grep -o -E '(exit status|code:?) 3' out | head -1 | grep -o 3
e rmi --force localhost/made >/dev/null
