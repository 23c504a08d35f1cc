// processes.c
// Dead children without losing them, and what /proc says about living ones.
// Every function returns a negative errno on failure. Read spawn.c before it.

#define _GNU_SOURCE
#include "CPanelindSystem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

pid_t panelind_peek(void) {
    siginfo_t info;
    info.si_pid = 0;
    int result;
    while ((result = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT)) < 0 && errno == EINTR) {}
    return result < 0 ? -errno : info.si_pid;
}

static int64_t microseconds(struct timeval time) { return (int64_t)time.tv_sec * 1000000 + time.tv_usec; }

int panelind_reap(pid_t pid, struct panelind_exit *out) {
    struct rusage use;
    int status = 0;
    pid_t result;
    memset(&use, 0, sizeof use);
    while ((result = wait4(pid, &status, WNOHANG, &use)) < 0 && errno == EINTR) {}
    if (result < 0) return -errno;
    if (result == 0) return -EAGAIN;
    out->pid = pid;
    out->by_signal = WIFSIGNALED(status) ? 1 : 0;
    out->status = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    out->core_dumped = WIFSIGNALED(status) && WCOREDUMP(status) ? 1 : 0;
    out->max_rss_kib = use.ru_maxrss;
    out->user_microseconds = microseconds(use.ru_utime);
    out->system_microseconds = microseconds(use.ru_stime);
    return 0;
}

long panelind_file_read(const char *path, void *out, size_t capacity) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (descriptor < 0) return -errno;
    size_t total = 0;
    while (total < capacity) {
        ssize_t count = read(descriptor, (char *)out + total, capacity - total);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            int error = errno;
            close(descriptor);
            return -error;
        }
        if (count == 0) break;
        total += (size_t)count;
    }
    close(descriptor);
    return (long)total;
}

int panelind_process_read(pid_t pid, struct panelind_process *out) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    long count = panelind_file_read(path, text, sizeof text - 1);
    if (count < 0) return (int)count;
    text[count] = 0;
    // The name is in parentheses and may contain both blanks and parentheses: what follows starts at the last one.
    char *rest = strrchr(text, ')');
    if (!rest) return -EIO;
    out->pid = pid;
    unsigned long long began = 0;
    int fields = sscanf(
        rest + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d %*d %llu", &out->state,
        &out->parent, &out->group, &out->session, &out->threads, &began);
    if (fields != 6) return -EIO;
    out->start = began;
    return 0;
}

long panelind_process_list(pid_t *out, size_t capacity) {
    DIR *directory = opendir("/proc");
    if (!directory) return -errno;
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
        if (count < capacity) out[count] = (pid_t)atoi(entry->d_name);
        count++;
    }
    closedir(directory);
    return (long)count;
}

// Reads one `children` file of any length: pids separated by blanks.
static int add_children(const char *path, pid_t *out, size_t capacity, size_t *count) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return -errno;
    char text[4096];
    pid_t number = 0;
    ssize_t bytes;
    while ((bytes = read(descriptor, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < bytes; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                number = number * 10 + (text[i] - '0');
            } else if (number > 0) {
                if (*count < capacity) out[*count] = number;
                (*count)++;
                number = 0;
            }
        }
    }
    int error = bytes < 0 ? -errno : 0;
    close(descriptor);
    if (number > 0) {
        if (*count < capacity) out[*count] = number;
        (*count)++;
    }
    return error;
}

long panelind_own_children(pid_t *out, size_t capacity) {
    // An orphan may be listed under any thread of its new parent, so every thread is asked.
    DIR *directory = opendir("/proc/self/task");
    if (!directory) return -errno;
    size_t count = 0;
    int seen = 0;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
        char path[80];
        snprintf(path, sizeof path, "/proc/self/task/%.20s/children", entry->d_name);
        int error = add_children(path, out, capacity, &count);
        // A thread that ended meanwhile has handed its children to another: only a look at all counts.
        if (error) {
            closedir(directory);
            return error;
        }
        seen = 1;
    }
    closedir(directory);
    return seen ? (long)count : -ENOENT;
}

int panelind_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 ? 0 : -errno; }

int panelind_pidfd_open(pid_t pid) {
    long result = syscall(SYS_pidfd_open, pid, 0);
    return result < 0 ? -errno : (int)result;
}

int panelind_pidfd_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 ? 0 : -errno;
}

int panelind_close_range_probe(unsigned last) {
    // Nothing is open so high: the largest limit a kernel takes by default is 2^30.
    return syscall(SYS_close_range, 0x7ffffff0u, last, 0) == 0 ? 0 : -errno;
}
