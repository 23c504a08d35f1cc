// descriptors.c
// Signals as a descriptor, datagrams with their sender, pipes of a size, event descriptors, terminals.
// Each function is one facility; PanelindSystem has the file that uses it. Read CPanelindSystem.h before it.

#define _GNU_SOURCE
#include "CPanelindSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static sigset_t set_of(const int *signals, size_t count) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++) sigaddset(&set, signals[i]);
    return set;
}

int panelind_signals_block(const int *signals, size_t count) {
    sigset_t set = set_of(signals, count);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error) return -error;
    // A SIGCHLD inherited as ignored would make the kernel reap our children before we see them.
    if (signal(SIGCHLD, SIG_DFL) == SIG_ERR) return -errno;
    // A log file at its limit (RLIMIT_FSIZE) is an error of write(2), not our end.
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return -errno;
    return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -errno : 0;
}

int panelind_signalfd(const int *signals, size_t count) {
    sigset_t set = set_of(signals, count);
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int panelind_signalfd_read(int descriptor, int *signal, pid_t *sender, int *from_kernel) {
    struct signalfd_siginfo info;
    ssize_t count;
    while ((count = read(descriptor, &info, sizeof info)) < 0 && errno == EINTR) {}
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    if (count != sizeof info) return -EIO;
    *signal = (int)info.ssi_signo;
    *sender = (pid_t)info.ssi_pid;
    *from_kernel = info.ssi_code == SI_KERNEL;
    return 1;
}

long panelind_receive(int descriptor, void *out, size_t capacity, pid_t *pid, uid_t *uid, int *truncated) {
    // Room for the credentials and the most descriptors one message can carry (unix(7), SCM_MAX_FD).
    char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(253 * sizeof(int))]
        __attribute__((aligned(__alignof__(struct cmsghdr))));
    struct iovec part = {out, capacity};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t count;
    while ((count = recvmsg(descriptor, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {}
    if (count < 0) return -errno;
    *pid = 0;
    *uid = (uid_t)-1;
    *truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
        if (item->cmsg_level != SOL_SOCKET) continue;
        if (item->cmsg_type == SCM_CREDENTIALS && item->cmsg_len >= CMSG_LEN(sizeof(struct ucred))) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(item), sizeof credentials);
            *pid = credentials.pid;
            *uid = credentials.uid;
        } else if (item->cmsg_type == SCM_RIGHTS) {
            size_t descriptors = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < descriptors; i++) {
                int number;
                memcpy(&number, CMSG_DATA(item) + i * sizeof(int), sizeof number);
                close(number);
            }
        }
    }
    return count;
}

int panelind_pipe(int descriptors[2], int bytes) {
    if (pipe2(descriptors, O_CLOEXEC) != 0) return -errno;
    // Beyond the user's pipe quota the kernel refuses; the default size works too.
    if (bytes > 0) (void)fcntl(descriptors[1], F_SETPIPE_SZ, bytes);
    return 0;
}

int panelind_eventfd(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int panelind_loop_trial(int spare) {
    int loop = epoll_create1(EPOLL_CLOEXEC);
    if (loop < 0) return -errno;
    int error = 0;
    int watched[2] = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), -1};
    if (watched[0] < 0) error = errno;
    if (!error && (watched[1] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0) error = errno;
    for (int i = 0; i < 2 && !error; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(loop, EPOLL_CTL_ADD, watched[i], &event) != 0) error = errno;
    }
    // Copies are taken and given back: what has room for them has room for the rest of the start.
    int copies[64], taken = 0;
    while (!error && taken < spare && taken < 64) {
        copies[taken] = fcntl(loop, F_DUPFD_CLOEXEC, 3);
        if (copies[taken] < 0) error = errno;
        else taken++;
    }
    while (taken > 0) close(copies[--taken]);
    for (int i = 0; i < 2; i++)
        if (watched[i] >= 0) close(watched[i]);
    close(loop);
    return -error;
}

int panelind_terminal_columns(int descriptor) {
    struct winsize size;
    return ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
