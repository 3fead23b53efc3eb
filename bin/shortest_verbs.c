/* mydocker-oci: does the shortest verbs itself and leaves all else to mydocker-oci.py, beside it.

   Python takes longer to start than `start`, `state`, `kill` and `delete` have work to do, and engines call these for
   every container. What that work is, `create` knows: it leaves a brief in the container's directory
   (mydocker/oci/brief.py), and this program follows it. Whatever is not the usual case goes to Python, which begins
   anew: rare options, hooks, a frozen container, a cgroup that is busy, and every error, for there are no words here.
   So each step is one that Python may find done: it takes the call for one that somebody has interrupted.

   setup.py builds it where there is a C compiler. Elsewhere mydocker-oci is the Python program. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* From setup.py: FORMAT, with which a brief of this release begins, and DEFAULT_ROOT, of mydocker/state.py. */

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define MOST (1 << 20)    /* bytes of a brief that is read here; the annotations are in it */
#define USUAL 250         /* milliseconds in which what is killed has ended, unless something keeps it */
#define BUSY 10           /* times that a cgroup may be found in use */
#define LAST_SIGNAL 64
#define PYTHON "mydocker-oci.py"
#define STARTING "MYDOCKER_OCI_STARTING" /* as in mydocker/oci/start.py */

struct call {
    const char *root, *log, *verb, *id;
    int signal;
    bool force;
};

/* Lines are of a brief: a word, a space and a value, each ended by a NUL. */
struct container {
    int directory;
    const char *lines, *end;
    int pid;
    unsigned long long start_time;
};

/* ---- The command line. False for what is not usual. ---- */

static bool is_id(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length > NAME_MAX || name[0] == '-' || !strcmp(name, ".") || !strcmp(name, ".."))
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+") == length;
}

/* The value of an option `name`, in its word or in the next one, which is then passed over; NULL if it is another. */
static const char *value_of(const char *name, char ***word)
{
    size_t length = strlen(name);

    if (strncmp(**word, name, length))
        return NULL;
    if ((**word)[length] == '=')
        return **word + length + 1;
    return (**word)[length] == '\0' && (*word)[1] ? *++*word : NULL;
}

static const char *default_root(void)
{
    const char *named = getenv("MYDOCKER_STATE_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");

    if (named && *named)
        return named;
    return geteuid() == 0 && !(runtime && *runtime) ? DEFAULT_ROOT : NULL;
}

static bool read_options(char ***word, struct call *call)
{
    const char *value;

    for (; **word && ***word == '-'; ++*word) {
        if (!strcmp(**word, "--systemd-cgroup"))
            continue;
        if ((value = value_of("--root", word)))
            call->root = value;
        else if ((value = value_of("--log-format", word))) {
            if (strcmp(value, "json") && strcmp(value, "text"))
                return false;
        } else if ((value = value_of("--log", word)))
            call->log = value;
        else
            return false;
    }
    if (!call->root || !*call->root)
        call->root = default_root();
    return call->root && !strstr(call->root, ".."); /* which Python takes away before it follows links */
}

static bool read_call(char **word, struct call *call)
{
    *call = (struct call){.signal = SIGTERM};
    if (!*word || !read_options(&word, call) || !*word)
        return false;
    call->verb = *word++;
    if (strcmp(call->verb, "start") && strcmp(call->verb, "state") && strcmp(call->verb, "kill") &&
        strcmp(call->verb, "delete"))
        return false;
    if (!strcmp(call->verb, "delete"))
        for (; *word && (!strcmp(*word, "--force") || !strcmp(*word, "-f")); word++)
            call->force = true;
    if (!*word || !is_id(*word))
        return false;
    call->id = *word++;
    if (*word && !strcmp(call->verb, "kill")) {
        char *rest = *word;
        unsigned long number = strspn(*word, "0123456789") && strlen(*word) < 4 ? strtoul(*word, &rest, 10) : 0;

        if (!strcmp(*word, "KILL") || !strcmp(*word, "SIGKILL"))
            number = SIGKILL;
        else if (!strcmp(*word, "TERM") || !strcmp(*word, "SIGTERM"))
            number = SIGTERM;
        else if (*rest)
            return false;
        if (number < 1 || number > LAST_SIGNAL)
            return false;
        call->signal = (int)number;
        word++;
    }
    return !*word;
}

/* ---- The container, and what the kernel says of it ---- */

/* The value of the next line with that word behind `after`, which is NULL for the first; NULL if there is none. */
static const char *next(const struct container *found, const char *word, const char *after)
{
    size_t length = strlen(word);

    for (const char *at = after ? after + strlen(after) + 1 : found->lines; at < found->end; at += strlen(at) + 1)
        if (!strncmp(at, word, length) && at[length] == ' ')
            return at + length + 1;
    return NULL;
}

static unsigned long long number(const struct container *found, const char *word)
{
    const char *value = next(found, word, NULL);

    return value ? strtoull(value, NULL, 10) : 0;
}

/* All of a small file, with a NUL behind it; its size, or -1. */
static ssize_t content(int directory, const char *name, char *buffer, size_t most)
{
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t size = 0;
    ssize_t got = -1;

    if (file < 0)
        return -1;
    while (size < most - 1 && (got = read(file, buffer + size, most - 1 - size)) > 0)
        size += (size_t)got;
    close(file);
    buffer[size] = '\0';
    if (got > 0)
        errno = EFBIG;
    return got == 0 ? (ssize_t)size : -1;
}

/* Read the brief, which must be of this release. */
static bool read_brief(struct container *found)
{
    static char brief[MOST];
    ssize_t size = content(found->directory, "brief", brief, sizeof brief);

    if (size < (ssize_t)sizeof FORMAT || memcmp(brief, FORMAT, sizeof FORMAT) || brief[size - 1])
        return false;
    found->lines = brief + sizeof FORMAT;
    found->end = brief + size;
    found->pid = (int)number(found, "pid");
    found->start_time = number(found, "start_time");
    return found->pid > 0 && next(found, "end", NULL);
}

/* In its directory, `path`, which is this user's, and nobody else may write there. */
static bool find(const struct call *call, struct container *found, char path[PATH_MAX])
{
    struct stat status;

    if (snprintf(path, PATH_MAX, "%s/%s", call->root, call->id) >= PATH_MAX)
        return false;
    found->directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (found->directory < 0 || fstat(found->directory, &status) || status.st_uid != geteuid() || status.st_mode & 022)
        return false;
    return read_brief(found);
}

enum life { ENDED, ALIVE, UNKNOWN };

/* Of the first process; a zombie has ended: proc_pid_stat(5), from the third field on. */
static enum life life(const struct container *found)
{
    char path[64], text[4096], *at, state;
    unsigned long long start_time;

    snprintf(path, sizeof path, "/proc/%d/stat", found->pid);
    if (content(AT_FDCWD, path, text, sizeof text) < 0)
        return errno == ENOENT || errno == ESRCH ? ENDED : UNKNOWN;
    if (!(at = strrchr(text, ')')) ||
        sscanf(at + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
               &start_time) != 2)
        return UNKNOWN;
    return start_time == found->start_time && state != 'Z' && state != 'X' ? ALIVE : ENDED;
}

/* Whether a cgroup of the container is not what it is when nothing is frozen. */
static bool is_frozen(const struct container *found)
{
    char text[32];

    for (const char *line = NULL; (line = next(found, "freezer", line));) { /* "0 /sys/fs/cgroup/...", as it is then */
        const char *path = strchr(line, ' ');
        size_t length = path ? (size_t)(path - line) : 0;

        if (!path || content(AT_FDCWD, path + 1, text, sizeof text) < 0)
            continue;
        if (strncmp(text, line, length) || text[length] != '\n')
            return true;
    }
    return false;
}

/* Whether the first process waits for `start`: it holds a lock until it executes the command. */
static bool waits(const struct container *found)
{
    int file = openat(found->directory, "waiting", O_RDONLY | O_CLOEXEC);
    bool held;

    if (file < 0)
        return false;
    held = flock(file, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(file);
    return held;
}

/* A pidfd of the first process, or -1: while that is not reaped, nobody else has its PID. */
static int open_process(const struct container *found)
{
    int process = (int)syscall(SYS_pidfd_open, found->pid, 0);

    if (process >= 0 && life(found) == ALIVE)
        return process;
    if (process >= 0)
        close(process);
    return -1;
}

/* ---- The verbs. False: Python is to do it. ---- */

/* What the first process says when it has taken a `start`: "R", the size of what follows, -1 (mydocker/handoff.py). */
static const char READY[] = "R\4\0\0\0\xff\xff\xff\xff";

/* `connection`: set once the first process has taken this `start`; Python is to go on with it. */
static bool start(const struct container *found, int *connection)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[sizeof READY - 1];
    ssize_t got;
    int ours;

    if (!next(found, "start", NULL) || life(found) != ALIVE || is_frozen(found))
        return false;
    if ((ours = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        return false;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start", found->directory);
    if (connect(ours, (struct sockaddr *)&address, sizeof address) || send(ours, "g", 1, MSG_NOSIGNAL) != 1 ||
        recv(ours, answer, sizeof answer, MSG_WAITALL) != (ssize_t)sizeof answer ||
        memcmp(answer, READY, sizeof answer)) {
        close(ours);
        return false;
    }
    got = recv(ours, answer, 1, MSG_PEEK);
    if (got > 0 || (got < 0 && errno != ECONNRESET)) { /* it has something to say */
        *connection = ours;
        return false;
    }
    unlinkat(found->directory, "start", 0);
    unlinkat(found->directory, "waiting", 0);
    return true;
}

static bool state(const struct container *found)
{
    const char *head = next(found, "head", NULL), *tail = next(found, "tail", NULL);
    const char *status = "running";
    enum life now = life(found);

    if (!head || !tail || now == UNKNOWN)
        return false;
    if (now == ENDED)
        status = "stopped";
    else if (is_frozen(found))
        status = "paused";
    else if (waits(found))
        status = "created";
    printf("%s\"pid\": %d,\n  \"status\": \"%s\"%s\n", head, now == ALIVE ? found->pid : 0, status, tail);
    return true;
}

static bool send_signal(const struct container *found, int signal)
{
    int process;
    bool sent;

    if (!next(found, "kill", NULL) || is_frozen(found) || (process = open_process(found)) < 0)
        return false;
    sent = !syscall(SYS_pidfd_send_signal, process, signal, NULL, 0);
    close(process);
    /* Frozen in between: Python sends it again, and thaws. */
    return sent && !(signal == SIGKILL && is_frozen(found) && life(found) != ENDED);
}

/* Whether the first process, killed here if it lives, has ended. */
static bool has_ended(const struct container *found, bool force)
{
    struct pollfd end = {.events = POLLIN};

    enum life now = life(found);

    if (now == ENDED)
        return true;
    if (now == UNKNOWN || !force || is_frozen(found))
        return false;
    if ((end.fd = open_process(found)) < 0)
        return life(found) == ENDED;
    if (syscall(SYS_pidfd_send_signal, end.fd, SIGKILL, NULL, 0) && errno != ESRCH)
        return false;
    return poll(&end, 1, USUAL) == 1;
}

static bool remove_cgroups(const struct container *found)
{
    for (const char *cgroup = NULL; (cgroup = next(found, "cgroup", cgroup));)
        for (int tries = 0; rmdir(cgroup) && errno != ENOENT && errno != ENODEV; tries++) {
            if (errno != EBUSY || tries == BUSY)
                return false;
            usleep(500); /* who was killed may be there for a moment after its end */
        }
    for (const char *parent = NULL; (parent = next(found, "parent", parent));)
        rmdir(parent); /* if it is empty; the highest come last */
    return true;
}

static bool has_containers(const char *root)
{
    DIR *list = opendir(root);
    struct dirent *entry;
    bool found = false;

    while (list && !found && (entry = readdir(list)))
        found = entry->d_name[0] != '@' && strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    if (list)
        closedir(list);
    return found;
}

static bool take_lock(const struct container *found)
{
    struct stat status;
    int lock = openat(found->directory, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    /* On the directory it is that of an update (mydocker/state.py, lock_for_update). */
    if (lock >= 0 && !flock(lock, LOCK_EX | LOCK_NB) && !fstat(lock, &status) && status.st_nlink &&
        !flock(found->directory, LOCK_EX | LOCK_NB))
        return true;
    if (lock >= 0)
        close(lock);
    return false;
}

/* The reverse of what `create` noted of a root that is not the common one, when there is no container in it any more. */
static void forget_root(const char *root, const char *noted, const struct container *found)
{
    if (has_containers(root))
        return;
    unlink(noted);
    if (has_containers(root)) { /* made in the moment before */
        if (symlink(root, noted))
            return;
    }
    for (const char *above = NULL; (above = next(found, "above", above));)
        rmdir(above); /* if it is empty */
}

/* As `mydocker.oci.delete.destroy` does it. */
static bool delete(struct container *found, const char *directory, bool force)
{
    static const char *const files[] = {"start", "waiting", "config.json", "state.json.new", "state.json.update",
                                        "brief", "state.json", "lock"};
    const char *root, *noted;

    /* Under the lock it is read again: a verb that held it may have changed what is to be done. */
    if (!take_lock(found) || !read_brief(found) || !next(found, "delete", NULL))
        return false;
    if (!has_ended(found, force) || !remove_cgroups(found))
        return false;
    for (int tries = 0; tries < 10; tries++) { /* an update may put its record there at this very moment */
        for (size_t i = 0; i < sizeof files / sizeof *files; i++)
            unlinkat(found->directory, files[i], 0);
        if (!rmdir(directory) || errno == ENOENT)
            break;
        if (errno != ENOTEMPTY && errno != EEXIST)
            return false;
    }
    if ((root = next(found, "root", NULL)) && (noted = next(found, "noted", NULL)))
        forget_root(root, noted, found);
    return true;
}

/* ---- */

/* Whether the log is there, as who reads it expects, or none is wanted. */
static bool has_log(const struct call *call)
{
    int file;

    if (!call->log || !*call->log)
        return true;
    if ((file = open(call->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0)
        return false;
    close(file);
    return true;
}

static bool serve(char **word, int *connection)
{
    char path[PATH_MAX];
    struct container found;
    struct call call;

    if (!read_call(word, &call) || !find(&call, &found, path) || !has_log(&call))
        return false;
    if (!strcmp(call.verb, "start"))
        return start(&found, connection);
    if (!strcmp(call.verb, "state"))
        return state(&found);
    if (!strcmp(call.verb, "kill"))
        return send_signal(&found, call.signal);
    return delete(&found, path, call.force);
}

/* Have Python do it, or go on with it, if there is a connection. It does not come back. */
static void become_python(char **argv, int connection)
{
    char path[PATH_MAX + sizeof PYTHON], variable[16];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    char *name = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;

    if (name)
        path[length] = '\0';
    if (name && strcmp(name + 1, PYTHON)) { /* or it would call itself */
        strcpy(name + 1, PYTHON);
        unsetenv(STARTING);
        if (connection >= 0) {
            snprintf(variable, sizeof variable, "%d", connection);
            setenv(STARTING, variable, 1);
            fcntl(connection, F_SETFD, 0);
        }
        execv(path, argv);
    }
    fprintf(stderr, "mydocker-oci: cannot execute %s, which belongs beside it: %s: install mydocker again\n", PYTHON,
            strerror(errno));
}

int main(int argc, char **argv)
{
    int connection = -1;

    if (argc > 1 && serve(argv + 1, &connection))
        return fflush(stdout) ? 1 : 0;
    become_python(argv, connection);
    return 1;
}
