/* faults.c
 * Preloaded into panelind: makes chosen system calls fail, the n-th, every one or some of many, with a chosen errno.
 * The plan is read from FAULTS, what happened is counted in the file FAULTS_STATE; faults.py writes and reads both.
 *
 * A rule is CALL[SUBJECT]=ERROR@WHEN, rules are separated by blanks. SUBJECT is part of a path, of what /proc/self/fd
 * says a descriptor is (pipe, socket, signalfd, a file's path; stdout for all that is the same file as 1), or the
 * operation of epoll_ctl (add, mod, del).
 * WHEN: 3 (the third), 3-5, 3- (from there on), 2/3 (two of every three). Only calls while the state's first word is set count.
 *
 * panelind calls the kernel through glibc's functions, syscall(2) among them, so all of it passes here, the child between
 * clone and exec too. It shares our memory: nothing here allocates. The worker's environment has nothing of this. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RULES = 16, TEXT = 256 };

struct rule {
    char call[24], subject[64];
    int error;
    uint64_t first, last, every; /* every: `first` of so many; 0: from first to last */
};

struct state {
    uint64_t armed;
    struct { uint64_t seen, struck; } rules[RULES];
};

static struct rule rules[RULES];
static int count;
static struct state *state;

static const struct { const char *name; int number; } errors[] = {
#define E(name) {#name, name}
    E(EAGAIN), E(ECHILD), E(ECONNABORTED), E(EINTR), E(EINVAL), E(EIO), E(EMFILE), E(ENFILE), E(ENOBUFS), E(ENOENT), E(ENOMEM),
    E(ENOSPC), E(ENOSYS), E(EPERM), E(EACCES), E(EPIPE), E(EPROTO), E(EROFS), E(ESRCH), E(ETXTBSY), E(EADDRINUSE), E(ENETDOWN),
    E(ECONNREFUSED), E(ECONNRESET), E(ETIMEDOUT), E(E2BIG), E(EDQUOT), E(EBUSY), E(EADDRNOTAVAIL), E(EAFNOSUPPORT),
#undef E
};

static _Noreturn void refuse(const char *what) {
    fprintf(stderr, "faults.c: cannot use the plan: %s\n", what);
    _exit(99);
}

static void parse(const char *text) {
    for (char word[TEXT]; sscanf(text, " %255s", word) == 1;) {
        text = strstr(text, word) + strlen(word);
        char *when = strrchr(word, '@'), *error = strrchr(word, '='), *subject = strchr(word, '[');
        if (!when || !error || error > when || count == RULES) refuse(word);
        struct rule *rule = &rules[count++];
        *when++ = *error++ = 0;
        if (subject && subject < error) {
            *subject++ = 0;
            subject[strcspn(subject, "]")] = 0;
            snprintf(rule->subject, sizeof rule->subject, "%s", subject);
        }
        if (strlen(word) >= sizeof rule->call) refuse(word);
        strcpy(rule->call, word);
        for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
            if (!strcmp(errors[i].name, error)) rule->error = errors[i].number;
        if (!rule->error && strcmp(error, "0")) refuse(error);
        char *rest;
        rule->first = rule->last = strtoull(when, &rest, 10);
        if (*rest == '-') rule->last = rest[1] ? strtoull(rest + 1, NULL, 10) : UINT64_MAX;
        if (*rest == '/') rule->every = strtoull(rest + 1, NULL, 10);
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *plan = getenv("FAULTS"), *path = getenv("FAULTS_STATE");
    /* A shell or unshare before it is left alone, and hands the plan on. */
    if (!plan || !path || strcmp(program_invocation_short_name, "panelind")) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) refuse(path);
    struct state *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) refuse("mmap");
    parse(plan);
    unsetenv("FAULTS");
    unsetenv("FAULTS_STATE");
    unsetenv("LD_PRELOAD");
    state = shared;
}

/* The errno for this call, or 0: the first rule that matches decides. `over`: the peer has hung up. To read then never says
 * EAGAIN, since there is the end to tell; NIO, which was told so by epoll, rightly traps at such a lie. */
static int fault_at(const char *call, const char *subject, int over) {
    if (!state || !__atomic_load_n(&state->armed, __ATOMIC_ACQUIRE)) return 0;
    for (int i = 0; i < count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->call, call) || !strstr(subject, rule->subject) || (over && rule->error == EAGAIN)) continue;
        uint64_t number = __atomic_add_fetch(&state->rules[i].seen, 1, __ATOMIC_ACQ_REL);
        int strikes = rule->every ? (number - 1) % rule->every < rule->first : number >= rule->first && number <= rule->last;
        if (!strikes || !rule->error) continue;
        __atomic_add_fetch(&state->rules[i].struck, 1, __ATOMIC_ACQ_REL);
        return rule->error;
    }
    return 0;
}

static int fault(const char *call, const char *subject) { return fault_at(call, subject, 0); }

static int fault_of(const char *call, int descriptor) {
    if (!state || !__atomic_load_n(&state->armed, __ATOMIC_ACQUIRE)) return 0;
    /* Most calls have no rule: no look at what the descriptor is. */
    int known = 0;
    for (int i = 0; i < count; i++) known |= !strcmp(rules[i].call, call);
    if (!known) return 0;
    char link[40], kind[TEXT];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, kind, sizeof kind - 1);
    kind[length < 0 ? 0 : length] = 0;
    /* The same file as 1, under whatever number: what panelind writes its log to. */
    char out[TEXT];
    length = readlink("/proc/self/fd/1", out, sizeof out - 1);
    out[length < 0 ? 0 : length] = 0;
    if (!strcmp(kind, out)) strncat(kind, " stdout", sizeof kind - strlen(kind) - 1);
    /* Not poll, which is one of ours. */
    struct pollfd one = {descriptor, POLLRDHUP, 0};
    int over = !strcmp(call, "read") && ppoll(&one, 1, &(struct timespec){0}, NULL) == 1 && one.revents & (POLLRDHUP | POLLHUP);
    errno = before;
    return fault_at(call, kind, over);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

/* CALL(result type, name, value of failure, fault, parameters, arguments) */
#define CALL(type, name, failure, judge, parameters, ...) \
    type name parameters { \
        REAL(name); \
        int error = judge; \
        if (error) { errno = error; return failure; } \
        return real(__VA_ARGS__); \
    }

CALL(int, accept, -1, fault("accept4", ""), (int fd, __SOCKADDR_ARG a, socklen_t *restrict l), fd, a, l)
CALL(int, accept4, -1, fault("accept4", ""), (int fd, __SOCKADDR_ARG a, socklen_t *restrict l, int f), fd, a, l, f)
CALL(int, bind, -1, fault("bind", ""), (int fd, __CONST_SOCKADDR_ARG a, socklen_t l), fd, a, l)
CALL(int, chmod, -1, fault("chmod", path), (const char *path, mode_t m), path, m)
CALL(int, connect, -1, fault("connect", ""), (int fd, __CONST_SOCKADDR_ARG a, socklen_t l), fd, a, l)
CALL(int, epoll_create, -1, fault("epoll_create", ""), (int s), s)
CALL(int, epoll_create1, -1, fault("epoll_create", ""), (int f), f)
CALL(int, epoll_ctl, -1, fault("epoll_ctl", op == EPOLL_CTL_ADD ? "add" : op == EPOLL_CTL_MOD ? "mod" : "del"),
     (int e, int op, int fd, struct epoll_event *v), e, op, fd, v)
CALL(int, epoll_wait, -1, fault("epoll_wait", ""), (int e, struct epoll_event *v, int n, int t), e, v, n, t)
CALL(int, eventfd, -1, fault("eventfd", ""), (unsigned v, int f), v, f)
CALL(int, execve, -1, fault("execve", path), (const char *path, char *const a[], char *const e[]), path, a, e)
CALL(int, getsockname, -1, fault("getsockname", ""), (int fd, __SOCKADDR_ARG a, socklen_t *restrict l), fd, a, l)
CALL(int, listen, -1, fault("listen", ""), (int fd, int n), fd, n)
CALL(char *, mkdtemp, NULL, fault("mkdtemp", t), (char *t), t)
CALL(void *, mmap, MAP_FAILED, fault("mmap", ""), (void *a, size_t l, int p, int f, int fd, off_t o), a, l, p, f, fd, o)
CALL(DIR *, opendir, NULL, fault("opendir", path), (const char *path), path)
CALL(int, pipe, -1, fault("pipe2", ""), (int p[2]), p)
CALL(int, pipe2, -1, fault("pipe2", ""), (int p[2], int f), p, f)
CALL(int, poll, -1, fault("poll", ""), (struct pollfd *p, nfds_t n, int t), p, n, t)
CALL(ssize_t, read, -1, fault_of("read", fd), (int fd, void *b, size_t n), fd, b, n)
CALL(ssize_t, recv, -1, fault_of("read", fd), (int fd, void *b, size_t n, int f), fd, b, n, f)
CALL(ssize_t, recvmsg, -1, fault_of("recvmsg", fd), (int fd, struct msghdr *m, int f), fd, m, f)
CALL(ssize_t, send, -1, fault_of("write", fd), (int fd, const void *b, size_t n, int f), fd, b, n, f)
CALL(ssize_t, sendmsg, -1, fault_of("sendmsg", fd), (int fd, const struct msghdr *m, int f), fd, m, f)
CALL(int, setrlimit, -1, fault("setrlimit", ""), (__rlimit_resource_t r, const struct rlimit *l), r, l)
CALL(int, setpgid, -1, fault("setpgid", ""), (pid_t p, pid_t g), p, g)
CALL(int, setsockopt, -1, fault("setsockopt", ""), (int fd, int l, int o, const void *v, socklen_t n), fd, l, o, v, n)
CALL(int, signalfd, -1, fault("signalfd", ""), (int fd, const sigset_t *s, int f), fd, s, f)
CALL(int, socket, -1, fault("socket", ""), (int d, int t, int p), d, t, p)
CALL(int, timerfd_create, -1, fault("timerfd", ""), (clockid_t c, int f), c, f)
CALL(pid_t, wait4, -1, fault("wait", ""), (pid_t p, int *s, int o, struct rusage *u), p, s, o, u)
CALL(int, waitid, -1, fault("waitid", ""), (idtype_t t, id_t i, siginfo_t *s, int o), t, i, s, o)
CALL(pid_t, waitpid, -1, fault("wait", ""), (pid_t p, int *s, int o), p, s, o)
CALL(ssize_t, write, -1, fault_of("write", fd), (int fd, const void *b, size_t n), fd, b, n)
CALL(ssize_t, writev, -1, fault_of("write", fd), (int fd, const struct iovec *v, int n), fd, v, n)

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*body)(void *), void *argument) {
    REAL(pthread_create);
    int error = fault("pthread_create", "");
    return error ? error : real(t, a, body, argument);
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    int error = fault("open", path);
    if (error) { errno = error; return -1; }
    return real(path, flags, mode);
}

int fcntl(int fd, int command, ...) {
    REAL(fcntl);
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    int error = command == F_DUPFD_CLOEXEC ? fault_of("dup", fd) : 0;
    if (error) { errno = error; return -1; }
    return real(fd, command, argument);
}

int clone(int (*body)(void *), void *stack, int flags, void *argument, ...) {
    REAL(clone);
    va_list more;
    va_start(more, argument);
    pid_t *parent = va_arg(more, pid_t *);
    va_end(more);
    int error = fault("clone", "");
    if (error) { errno = error; return -1; }
    return real(body, stack, flags, argument, parent);
}

long syscall(long number, ...) {
    REAL(syscall);
    va_list more;
    va_start(more, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    const char *name = number == SYS_pidfd_open            ? "pidfd_open"
                       : number == SYS_pidfd_send_signal   ? "pidfd_send_signal"
                       : number == SYS_close_range         ? "close_range"
                       : number == SYS_setgroups           ? "setgroups"
                       : number == SYS_getdents64          ? "getdents"
                                                           : NULL;
    int error = name ? fault(name, "") : 0;
    if (error) { errno = error; return -1; }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
