# engines: podman
# runtimes: mydocker-oci
# shows: file of 0:0, made by 0:0\nfile is 0:0, made is 0:0
# shows: Permission denied

mkdir -p dir; touch dir/file
e run --rm --uidmap 0:100000:65536 --volume $PWD/dir:/d:idmap $image sh -c 'touch /d/made; stat -c "%n of %u:%g" /d/file /d/made' |
    sed 's,/d/,,; s/made of/made by/' | paste -s -d , | sed 's/,/, /'
stat -c '%n is %u:%g' dir/file dir/made | sed 's,dir/,,' | paste -s -d , | sed 's/,/, /'
chown 70000 dir/file; e run --rm --uidmap 0:100000:65536 --volume $PWD/dir:/d:idmap $image touch /d/file 2>&1
