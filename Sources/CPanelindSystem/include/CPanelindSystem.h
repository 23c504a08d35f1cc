// CPanelindSystem.h
// What Swift cannot say to the kernel: the vfork-style spawn, peeked waits, signalfd, control messages.
// Policy is in PanelindSystem. Read DESIGN section 3 before it.

#ifndef CPANELIND_SYSTEM_H
#define CPANELIND_SYSTEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// The steps of a start, in their order; the number says which one failed.
enum {
    PANELIND_STEP_NONE = 0,
    PANELIND_STEP_CLONE,
    PANELIND_STEP_STAGE,         // descriptors moved out of the way, /dev/null opened
    PANELIND_STEP_GROUP,         // setpgid
    PANELIND_STEP_LIMIT,         // setrlimit; detail is the index of the limit
    PANELIND_STEP_GROUPS,        // setgroups
    PANELIND_STEP_GID,           // setresgid
    PANELIND_STEP_UID,           // setresuid
    PANELIND_STEP_DIRECTORY,     // chdir
    PANELIND_STEP_DEATH_SIGNAL,  // prctl(PR_SET_PDEATHSIG)
    PANELIND_STEP_PARENT,        // the parent died meanwhile
    PANELIND_STEP_DESCRIPTORS,   // dup3 to the places asked for; detail is the target
    PANELIND_STEP_EXEC,          // execve
};

// What a standard stream is, besides a descriptor's number.
enum { PANELIND_INHERIT = -1, PANELIND_NULL = -2 };

// How descriptors above those given are closed; each falls back to the next.
enum {
    PANELIND_CLOSE_RANGE = 0,     // close_range(n, ~0U)
    PANELIND_CLOSE_RANGE_INT,     // close_range(n, INT_MAX): an older gVisor refuses ~0U
    PANELIND_CLOSE_LISTED,        // those that /proc/self/fd lists
    PANELIND_CLOSE_COUNTED,       // all up to the limit
};

// More descriptors than this for one child are refused with E2BIG.
enum { PANELIND_DESCRIPTORS_MAX = 64, PANELIND_PID_PLACES_MAX = 4 };

struct panelind_descriptor {
    int target;
    int source;
};

struct panelind_limit {
    int resource;
    uint64_t value;
};

// One start. The pointers belong to the caller and must live until the call returns.
struct panelind_spawn {
    const char *path;
    char *const *arguments;
    char *const *environment;
    // Where the child writes its own pid in decimal, NUL-terminated, 12 bytes each: inside strings of `environment`.
    char *pid_places[PANELIND_PID_PLACES_MAX];
    // NULL: the directory stays.
    const char *directory;
    // A descriptor, PANELIND_INHERIT or PANELIND_NULL.
    int standard[3];
    // Sorted by target, targets above 2 and distinct.
    const struct panelind_descriptor *descriptors;
    size_t descriptor_count;
    const struct panelind_limit *limits;
    size_t limit_count;
    const gid_t *groups;
    size_t group_count;
    uid_t uid;
    gid_t gid;
    int changes_credentials;
    int new_process_group;
    int wants_pidfd;
    int closing;
    // Set by the call: the first step that failed, its errno, and what it was about.
    int step;
    int error;
    int detail;
};

// Starts a process as DESIGN section 3 says; the calling thread is suspended until exec (vfork(2)).
// Returns its pid, or -1 with step and error set; then nothing is left to reap. `*pidfd` is -1 where there is none.
pid_t panelind_spawn(struct panelind_spawn *request, int *pidfd);

// Raises the soft limit of descriptors towards the hard one, at most to `most` (setrlimit(2)); every child starts
// with the limit of before. Where it cannot be raised it stays.
void panelind_raise_descriptors(uint64_t most);

// How one child ended, and what it used.
struct panelind_exit {
    int32_t pid;
    // The exit code, or the signal's number.
    int32_t status;
    int32_t by_signal;
    int32_t core_dumped;
    int64_t max_rss_kib;
    int64_t user_microseconds;
    int64_t system_microseconds;
};

// Looks for a dead child without reaping it: its pid, 0 when all live, -ECHILD when there is none at all.
pid_t panelind_peek(void);

// Reaps this dead child: 0, or a negative errno.
int panelind_reap(pid_t pid, struct panelind_exit *out);

// One process of /proc/PID/stat (proc(5)).
struct panelind_process {
    int32_t pid;
    int32_t parent;
    int32_t group;
    int32_t session;
    int32_t threads;
    char state;
    // Clock ticks since boot, field 22.
    uint64_t start;
};

// Reads /proc/PID/stat: 0, or a negative errno.
int panelind_process_read(pid_t pid, struct panelind_process *out);

// Lists the numbers in /proc, at most `capacity`: how many there are, or a negative errno.
long panelind_process_list(pid_t *out, size_t capacity);

// Lists the children of this process from /proc/self/task/*/children: how many there are (more than `capacity`
// means: ask again with more), or a negative errno; -ENOENT where the kernel has no such file.
long panelind_own_children(pid_t *out, size_t capacity);

// Reads at most `capacity` bytes of a file: how many, or a negative errno.
long panelind_file_read(const char *path, void *out, size_t capacity);

// Makes this process adopt the orphans among its descendants (prctl(2)): 0, or a negative errno.
int panelind_become_subreaper(void);

// pidfd_open(2): a descriptor with CLOEXEC, or a negative errno.
int panelind_pidfd_open(pid_t pid);

// pidfd_send_signal(2): 0, or a negative errno.
int panelind_pidfd_signal(int pidfd, int signal);

// close_range(2) on a range without open descriptors: 0 where the call works, or a negative errno.
int panelind_close_range_probe(unsigned last);

// Blocks these signals in the calling thread, ignores SIGPIPE and SIGXFSZ: 0, or a negative errno.
int panelind_signals_block(const int *signals, size_t count);

// A non-blocking signalfd(2) for these signals, or a negative errno.
int panelind_signalfd(const int *signals, size_t count);

// The next signal: 1, 0 when none waits, or a negative errno. `*from_kernel`: si_code is SI_KERNEL (a terminal's key).
int panelind_signalfd_read(int descriptor, int *signal, pid_t *sender, int *from_kernel);

// Receives one datagram with its sender; descriptors that came with it are closed.
// Returns its length, or a negative errno; `*truncated` is set when text or control data did not fit; pid 0: unknown.
long panelind_receive(int descriptor, void *out, size_t capacity, pid_t *pid, uid_t *uid, int *truncated);

// pipe2 with CLOEXEC, its capacity asked for where `bytes` is not 0: 0, or a negative errno.
// A refused size is no error.
int panelind_pipe(int descriptors[2], int bytes);

// A non-blocking eventfd with CLOEXEC, or a negative errno.
int panelind_eventfd(void);

// Makes what an event loop is made of (epoll(7), eventfd, timerfd) and `spare` descriptors more, at most 64, and closes
// all of it: 0, or the negative errno of what could not be had.
int panelind_loop_trial(int spare);

// The number of columns of this terminal, 0 when it is none.
int panelind_terminal_columns(int descriptor);

// Loads libsystemd.so.0 with all that is used of it: 0, or a negative errno and the reason in `why`.
// Once, before another thread calls one of those below; each answers -ENOSYS without it.
int panelind_systemd_load(char *why, size_t capacity);

// sd_notify(3): positive when sent, 0 without NOTIFY_SOCKET, or a negative errno. Blocks while its receiver is full.
int panelind_systemd_notify(const char *text);

// sd_notify_barrier(3): waits until all that was sent has been received, at most so long.
int panelind_systemd_barrier(uint64_t microseconds);

// sd_watchdog_enabled(3): positive where WATCHDOG_USEC is for us, 0 where it is not, or a negative errno.
int panelind_systemd_watchdog(uint64_t *microseconds);

// sd_journal_sendv(3): 0, or a negative errno. Blocks while the journal takes nothing.
int panelind_systemd_journal(const struct iovec *fields, int count);

// sd_booted(3): positive where the machine was booted by systemd.
int panelind_systemd_booted(void);

#endif
