/*
 * The floor: what the kernel takes for the container that mydocker makes, asked for in C with nothing around it.
 *
 *     floor ROOTFS FILTER CAPABILITIES COMMAND [ARGUMENT...]
 *
 * For each line on stdin it makes one container, runs COMMAND, waits, removes the container, and prints how many
 * nanoseconds that took. Namespaces, mounts, masked and read-only paths, views of the cgroups, limits (100 MB of
 * memory, 512 CPU shares, 50 tasks), capabilities (a mask in hex) and seccomp program (a file of BPF instructions) are
 * those of a run by mydocker. What a runtime is for is left out: it trusts the root, tells no errors apart, knows no
 * users, terminals, signals or plugins, and reads no usage.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <mntent.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define CHECK(call) ((call) < 0 ? err(125, "%s", #call) : (void)0)
#define ARRAY(a) (int)(sizeof(a) / sizeof *(a))

static struct { char path[256], name[64], options[128]; int v2; } hierarchies[32];
static struct { char path[512], file[640]; const char *text; int v2, entrance; } limits[3];
static int hierarchy_count, limit_count;
static struct sock_filter instructions[BPF_MAXINSNS];
static struct sock_fprog filter = {.filter = instructions};
static unsigned long capabilities;

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err(125, "%s", path);
	close(fd);
}

static int alone_on_v2(void)
{
	return hierarchy_count == 1 && hierarchies[0].v2;
}

/* Where the hierarchies are, and which directory and file each limit has: once, before anything is timed. */
static void find_cgroups(void)
{
	static const char *controllers[] = {"memory", "cpu", "pids"};
	static const char *v1[][2] = {{"memory.limit_in_bytes", "104857600"}, {"cpu.shares", "512"}, {"pids.max", "50"}};
	static const char *v2[][2] = {{"memory.max", "104857600"}, {"cpu.weight", "59"}, {"pids.max", "50"}};
	static const char *common = ",rw,ro,relatime,nosuid,nodev,noexec,nsdelegate,memory_recursiveprot,";
	struct mntent *m;
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	while (mounts && (m = getmntent(mounts)) && hierarchy_count < ARRAY(hierarchies)) {
		if (strncmp(m->mnt_type, "cgroup", 6))
			continue;
		int n = hierarchy_count++, is_v2 = !strcmp(m->mnt_type, "cgroup2");
		char parent[300], word[64];
		hierarchies[n].v2 = is_v2;
		snprintf(hierarchies[n].path, sizeof hierarchies[n].path, "%s", m->mnt_dir);
		snprintf(hierarchies[n].name, sizeof hierarchies[n].name, "%s", strrchr(m->mnt_dir, '/') + 1);
		snprintf(parent, sizeof parent, "%s/mydocker-floor", m->mnt_dir);
		for (char *o = strtok(m->mnt_opts, ","); o && !is_v2; o = strtok(NULL, ",")) {
			snprintf(word, sizeof word, ",%s,", o);
			if (strstr(common, word) || strstr(o, "release_agent"))
				continue;
			char *to = hierarchies[n].options;
			snprintf(to + strlen(to), 60, "%s%s%s", *to ? "," : "", strncmp(o, "name=", 5) ? "" : "none,", o);
			for (int i = 0; i < 3; i++)
				if (!strcmp(o, controllers[i])) {
					int l = limit_count++;
					mkdir(parent, 0755);
					snprintf(limits[l].path, 500, "%s/%d", parent, getpid());
					snprintf(limits[l].file, 600, "%s/%s", limits[l].path, v1[i][0]);
					limits[l].text = v1[i][1];
				}
		}
	}
	if (alone_on_v2()) {
		char file[400];
		snprintf(file, sizeof file, "%s/cgroup.subtree_control", hierarchies[0].path);
		put(file, "+memory +cpu +pids");
		snprintf(file, sizeof file, "%s/mydocker-floor", hierarchies[0].path);
		mkdir(file, 0755);
		strcat(file, "/cgroup.subtree_control");
		put(file, "+memory +cpu +pids");
		for (int i = 0; i < 3; i++) {
			limits[i].v2 = 1;
			snprintf(limits[i].path, 500, "%s/mydocker-floor/%d", hierarchies[0].path, getpid());
			snprintf(limits[i].file, 600, "%s/%s", limits[i].path, v2[i][0]);
			limits[i].text = v2[i][1];
		}
		limit_count = 3;
	}
	if (limit_count < 3)
		errx(125, "there are no controllers for memory, cpu and pids");
}

static void bind_over(const char *source, const char *target, unsigned long flags)
{
	if (mount(source, target, NULL, MS_BIND, NULL) < 0) {
		if (errno != ENOENT)
			err(125, "%s", target);
	} else if (flags)
		CHECK(mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | flags, NULL));
}

static void make_root(const char *root)
{
	static const struct { const char *name; int major, minor; } nodes[] = {
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	static const char *links[][2] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}};
	static const char *hidden_files[] = {"interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"};
	static const char *hidden_directories[] = {"proc/asound", "proc/scsi", "sys/devices/virtual/powercap", "sys/firmware"};
	static const char *read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
	char path[200];

	CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
	CHECK(mount(NULL, root, NULL, MS_BIND | MS_REMOUNT | MS_NODEV, NULL));
	CHECK(chdir(root));
	CHECK(mount("proc", "proc", "proc", SAFE, NULL));
	CHECK(mount("sysfs", "sys", "sysfs", SAFE | MS_RDONLY, NULL));
	CHECK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k"));
	for (int i = 0; i < ARRAY(nodes); i++) {
		snprintf(path, sizeof path, "dev/%s", nodes[i].name);
		CHECK(mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
	}
	for (int i = 0; i < ARRAY(links); i++) {
		snprintf(path, sizeof path, "dev/%s", links[i][0]);
		CHECK(symlink(links[i][1], path));
	}
	CHECK(close(open("dev/console", O_CREAT | O_CLOEXEC, 0600)));
	CHECK(mkdir("dev/pts", 0755));
	CHECK(mkdir("dev/shm", 0755));
	CHECK(mkdir("dev/mqueue", 0755));
	CHECK(mount("shm", "dev/shm", "tmpfs", SAFE, "mode=1777,size=64m"));
	CHECK(mount("mqueue", "dev/mqueue", "mqueue", SAFE, NULL));
	CHECK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	for (int i = 0; i < ARRAY(hidden_files); i++) {
		snprintf(path, sizeof path, "proc/%s", hidden_files[i]);
		bind_over("/dev/null", path, 0);
	}
	CHECK(mount("tmpfs", "proc/acpi", "tmpfs", SAFE | MS_RDONLY, NULL));
	for (int i = 0; i < ARRAY(hidden_directories); i++)
		bind_over("proc/acpi", hidden_directories[i], 0);
	for (int i = 0; i < ARRAY(read_only); i++)
		bind_over(read_only[i], read_only[i], SAFE | MS_RDONLY);
	if (!alone_on_v2()) {
		CHECK(mount("tmpfs", "sys/fs/cgroup", "tmpfs", SAFE, "mode=755,size=64k"));
		for (int i = 0; i < hierarchy_count; i++) {
			snprintf(path, sizeof path, "sys/fs/cgroup/%s", hierarchies[i].name);
			CHECK(mkdir(path, 0755));
		}
		CHECK(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | SAFE | MS_RDONLY, NULL));
	}
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	CHECK(chdir("/"));
}

static void show_cgroups(void)
{
	char path[200];

	CHECK(unshare(CLONE_NEWCGROUP));
	for (int i = 0; i < hierarchy_count; i++) {
		const char *type = hierarchies[i].v2 ? "cgroup2" : "cgroup";
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", alone_on_v2() ? "" : hierarchies[i].name);
		CHECK(mount(type, path, type, SAFE | MS_RDONLY, hierarchies[i].options));
	}
}

static void confine(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {
		{.effective = (__u32)capabilities, .permitted = (__u32)capabilities},
		{.effective = (__u32)(capabilities >> 32), .permitted = (__u32)(capabilities >> 32)}};

	for (int i = 0; prctl(PR_CAPBSET_READ, i) >= 0; i++)
		if (!(capabilities >> i & 1))
			CHECK(prctl(PR_CAPBSET_DROP, i));
	CHECK(syscall(SYS_capset, &header, sets));
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter));
}

static void become_command(const char *root, char **command, int reports, int words)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	char word;

	CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL));
	CHECK(setsid());
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	CHECK(sethostname("floor", 5));
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(ioctl(s, SIOCSIFFLAGS, &loopback));
	umask(0);
	make_root(root);
	umask(022);
	for (int i = 0; i < limit_count; i++)
		if (!limits[i].v2)
			CHECK(write(limits[i].entrance, "0", 1));
	CHECK(write(reports, "R", 1));
	if (read(words, &word, 1) != 1)
		_exit(125);
	show_cgroups();
	confine();
	execv(command[0], command);
	err(127, "%s", command[0]);
}

static void run(const char *root, char **command)
{
	int words[2], reports[2], pidfd, status, birthplace = -1;
	char word;

	for (int i = 0; i < limit_count; i++) {
		char path[600];
		if (mkdir(limits[i].path, 0755) < 0 && !(limits[i].v2 && errno == EEXIST))
			err(125, "%s", limits[i].path);
		put(limits[i].file, limits[i].text);
		snprintf(path, sizeof path, "%s/tasks", limits[i].path);
		if (!limits[i].v2)
			CHECK(limits[i].entrance = open(path, O_WRONLY | O_CLOEXEC));
	}
	if (limits[0].v2)
		CHECK(birthplace = open(limits[0].path, O_RDONLY | O_CLOEXEC));
	CHECK(pipe2(words, O_CLOEXEC));
	CHECK(pipe2(reports, O_CLOEXEC));
	struct clone_args clone = {
		.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET |
			 (birthplace >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (__u64)(unsigned long)&pidfd, .exit_signal = SIGCHLD, .cgroup = (__u64)birthplace};
	long pid = syscall(SYS_clone3, &clone, sizeof clone);
	CHECK(pid);
	if (pid == 0) {
		close(words[1]);
		become_command(root, command, reports[1], words[0]);
	}
	close(words[0]);
	close(reports[1]);
	if (read(reports[0], &word, 1) != 1)
		errx(125, "the container was not made");
	CHECK(write(words[1], "g", 1));
	close(words[1]);
	read(reports[0], &word, 1); /* its end: the command runs */
	CHECK(waitpid((pid_t)pid, &status, 0));
	close(reports[0]);
	close(pidfd);
	if (birthplace >= 0)
		close(birthplace);
	for (int i = 0; i < limit_count; i++) {
		if (!limits[i].v2)
			close(limits[i].entrance);
		if (rmdir(limits[i].path) < 0 && !(limits[i].v2 && errno == ENOENT))
			err(125, "%s", limits[i].path);
	}
	if (status)
		errx(125, "the command ended with status %d", status);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(int count, char **words)
{
	char line[16];

	if (count < 5)
		errx(125, "usage: floor ROOTFS FILTER CAPABILITIES COMMAND [ARGUMENT...]");
	FILE *program = fopen(words[2], "r");
	if (!program)
		err(125, "%s", words[2]);
	filter.len = fread(instructions, sizeof *instructions, BPF_MAXINSNS, program);
	fclose(program);
	capabilities = strtoul(words[3], NULL, 16);
	find_cgroups();
	while (fgets(line, sizeof line, stdin)) {
		long started = now();
		run(words[1], words + 4);
		printf("%ld\n", now() - started);
		fflush(stdout);
	}
	for (int i = 0; i < limit_count; i++) {
		*strrchr(limits[i].path, '/') = 0;
		rmdir(limits[i].path);
	}
}
