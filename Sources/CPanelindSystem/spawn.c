// spawn.c
// Starts one process without copying memory: clone(CLONE_VM | CLONE_VFORK), the steps in the order of DESIGN section 3.
// The child shares our memory until exec: it allocates nothing, locks nothing, and calls the kernel only.

#define _GNU_SOURCE
#include "CPanelindSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

// glibc hides signals 32 and 33 from its wrappers; the child must not inherit anything of them either.
static long raw_mask(int how, const uint64_t *set, uint64_t *old) {
    return syscall(SYS_rt_sigprocmask, how, set, old, sizeof *set);
}

static void default_dispositions(void) {
    // Large enough for the kernel's sigaction on every architecture; all zero is SIG_DFL without flags.
    char zero[64] = {0};
    for (int signal = 1; signal <= 64; signal++) {
        if (signal == SIGKILL || signal == SIGSTOP) continue;
        syscall(SYS_rt_sigaction, signal, zero, NULL, sizeof(uint64_t));
    }
}

// The entries of getdents64(2).
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int close_listed(unsigned first, unsigned last) {
    int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return -1;
    char buffer[4096] __attribute__((aligned(8)));
    long bytes;
    while ((bytes = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < bytes;) {
            struct entry *entry = (struct entry *)(buffer + at);
            at += entry->length;
            unsigned number = 0;
            const char *digit = entry->name;
            if (*digit < '0' || *digit > '9') continue;
            for (; *digit >= '0' && *digit <= '9'; digit++) number = number * 10 + (unsigned)(*digit - '0');
            if (number >= first && number <= last && (int)number != directory) close((int)number);
        }
    }
    close(directory);
    return bytes < 0 ? -1 : 0;
}

// The soft limit of descriptors before it was raised; 0: it was not.
static rlim_t raised_from = 0;

void panelind_raise_descriptors(uint64_t most) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    rlim_t wanted = limit.rlim_max < most ? limit.rlim_max : (rlim_t)most;
    if (limit.rlim_cur >= wanted) return;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0) raised_from = before;
}

// By the descriptors that could exist: slow where the limit is a million, but it needs nothing of the kernel.
static void close_counted(unsigned first, unsigned last) {
    struct rlimit limit;
    unsigned bound = 1u << 20;
    // The hard limit: the soft one may have been lowered below descriptors that are open.
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < bound) bound = (unsigned)limit.rlim_max;
    for (unsigned number = first; number <= last && number < bound; number++) close((int)number);
}

static void close_between(unsigned first, unsigned last, int *how) {
    if (first > last) return;
    if (*how == PANELIND_CLOSE_RANGE) {
        if (syscall(SYS_close_range, first, last == INT_MAX ? ~0u : last, 0) == 0) return;
        *how = PANELIND_CLOSE_RANGE_INT;
    }
    if (*how == PANELIND_CLOSE_RANGE_INT) {
        if (syscall(SYS_close_range, first, last, 0) == 0) return;
        *how = PANELIND_CLOSE_LISTED;
    }
    if (*how == PANELIND_CLOSE_LISTED) {
        if (close_listed(first, last) == 0) return;
        *how = PANELIND_CLOSE_COUNTED;
    }
    close_counted(first, last);
}

static void write_pid(char *place, pid_t pid) {
    char digits[12];
    int count = 0;
    do digits[count++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    while (count > 0) *place++ = digits[--count];
    *place = 0;
}

// Between parent and child; both see the same memory.
struct start {
    struct panelind_spawn *request;
    pid_t parent;
};

static _Noreturn void fail(struct panelind_spawn *request, int step, int detail) {
    request->error = errno;
    request->detail = detail;
    request->step = step;
    _exit(127);
}

static int child(void *argument) {
    struct start *start = argument;
    struct panelind_spawn *request = start->request;
    const uint64_t empty = 0;
    int staged[PANELIND_DESCRIPTORS_MAX], standard[3];

    // Dispositions first: with the mask open, no handler of ours may run in this shared memory.
    default_dispositions();
    raw_mask(SIG_SETMASK, &empty, NULL);

    // Sources are moved above all targets before limits apply: a low openFiles would refuse the move.
    int base = 3;
    if (request->descriptor_count > 0) base = request->descriptors[request->descriptor_count - 1].target + 1;
    for (int i = 0; i < 3; i++) {
        standard[i] = -1;
        if (request->standard[i] == PANELIND_INHERIT) continue;
        int source = request->standard[i];
        if (source == PANELIND_NULL) source = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
        if (source < 0) fail(request, PANELIND_STEP_STAGE, i);
        standard[i] = fcntl(source, F_DUPFD_CLOEXEC, base);
        if (standard[i] < 0) fail(request, PANELIND_STEP_STAGE, i);
    }
    for (size_t i = 0; i < request->descriptor_count; i++) {
        staged[i] = fcntl(request->descriptors[i].source, F_DUPFD_CLOEXEC, base);
        if (staged[i] < 0) fail(request, PANELIND_STEP_STAGE, request->descriptors[i].target);
    }

    if (request->new_process_group && setpgid(0, 0) != 0) fail(request, PANELIND_STEP_GROUP, 0);
    // Ours was raised: programs that select(2) must not inherit it. A worker's own setting comes after.
    if (raised_from != 0) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
            limit.rlim_cur = raised_from;
            setrlimit(RLIMIT_NOFILE, &limit);
        }
    }
    for (size_t i = 0; i < request->limit_count; i++) {
        struct rlimit limit = {request->limits[i].value, request->limits[i].value};
        if (setrlimit((__rlimit_resource_t)request->limits[i].resource, &limit) != 0)
            fail(request, PANELIND_STEP_LIMIT, (int)i);
    }
    if (request->changes_credentials) {
        // Raw calls: glibc's would change every thread of ours through a signal that this child cannot answer.
        if (syscall(SYS_setgroups, request->group_count, request->groups) != 0) fail(request, PANELIND_STEP_GROUPS, 0);
        if (syscall(SYS_setresgid, request->gid, request->gid, request->gid) != 0) fail(request, PANELIND_STEP_GID, 0);
        if (syscall(SYS_setresuid, request->uid, request->uid, request->uid) != 0) fail(request, PANELIND_STEP_UID, 0);
    }
    if (request->directory && chdir(request->directory) != 0) fail(request, PANELIND_STEP_DIRECTORY, 0);
    // After the credentials: a change of uid clears it.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail(request, PANELIND_STEP_DEATH_SIGNAL, 0);
    if (getppid() != start->parent) {
        errno = ESRCH;
        fail(request, PANELIND_STEP_PARENT, 0);
    }

    for (int i = 0; i < 3; i++)
        if (standard[i] >= 0 && dup3(standard[i], i, 0) < 0) fail(request, PANELIND_STEP_DESCRIPTORS, i);
    unsigned next = 3;
    int how = request->closing;
    for (size_t i = 0; i < request->descriptor_count; i++) {
        int target = request->descriptors[i].target;
        if (dup3(staged[i], target, 0) < 0) fail(request, PANELIND_STEP_DESCRIPTORS, target);
    }
    for (size_t i = 0; i < request->descriptor_count; i++) {
        unsigned target = (unsigned)request->descriptors[i].target;
        if (target > next) close_between(next, target - 1, &how);
        next = target + 1;
    }
    close_between(next, INT_MAX, &how);

    for (int i = 0; i < PANELIND_PID_PLACES_MAX; i++)
        if (request->pid_places[i]) write_pid(request->pid_places[i], getpid());
    // execve, not execvp: a file without a valid header is an error, never a script for the shell.
    execve(request->path, request->arguments, request->environment);
    fail(request, PANELIND_STEP_EXEC, 0);
}

pid_t panelind_spawn(struct panelind_spawn *request, int *pidfd) {
    // On our own stack: we do not move while the child lives on it, and no two threads share it.
    char stack[32768] __attribute__((aligned(64)));
    struct start start = {request, getpid()};
    const uint64_t full = ~(uint64_t)0;
    uint64_t before = 0;

    request->step = PANELIND_STEP_NONE;
    request->error = 0;
    request->detail = 0;
    *pidfd = -1;
    if (request->descriptor_count > PANELIND_DESCRIPTORS_MAX) {
        request->step = PANELIND_STEP_STAGE;
        request->error = E2BIG;
        return -1;
    }
    int dumpable = request->changes_credentials ? prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) : 0;
    raw_mask(SIG_SETMASK, &full, &before);
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    pid_t pid = -1;
    if (request->wants_pidfd) {
        pid = clone(child, stack + sizeof stack, flags | CLONE_PIDFD, &start, pidfd);
        // Only "I do not know this flag" and a filter's refusal are tried again; the others are the answer.
        if (pid < 0 && errno != EINVAL && errno != ENOSYS && errno != EPERM) goto refused;
    }
    if (pid < 0) pid = clone(child, stack + sizeof stack, flags, &start);
refused:;
    int error = errno;
    raw_mask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        request->step = PANELIND_STEP_CLONE;
        request->error = error;
        return -1;
    }
    // A change of uid in the child made our shared memory undumpable; that was meant for the child only.
    if (dumpable == 1) prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (request->step == PANELIND_STEP_NONE) return pid;
    if (*pidfd >= 0) close(*pidfd);
    *pidfd = -1;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    return -1;
}
