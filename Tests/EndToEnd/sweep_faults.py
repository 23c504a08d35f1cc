# sweep_faults.py
# Every system call that a life makes fails once, one life for each: what becomes of it is printed, and must be lawful.
# Not among `make test`: run by `make faults`. Read test_faults.py first, which says what is right where it matters.

import os

import pytest

# How many of the first calls of each kind are tried.
FIRST = int(os.environ.get("FIRST", "40"))

# The call, and what it may say. A plain read or write is told apart by what it is of.
CALLS = [
    ("accept4", "EMFILE ENFILE ENOMEM ECONNABORTED EPERM EPROTO EINTR EAGAIN"),
    ("bind", "EADDRINUSE EACCES"),
    ("clone", "EAGAIN ENOMEM"),
    ("close_range", "ENOSYS EPERM"),
    ("connect", "ECONNREFUSED EAGAIN ETIMEDOUT EINTR"),
    ("dup", "EMFILE"),
    ("epoll_create", "EMFILE ENOMEM"),
    ("epoll_wait", "EINTR"),
    ("eventfd", "EMFILE"),
    ("execve", "EAGAIN ENOMEM EACCES EIO"),
    ("getsockname", "ENOBUFS"),
    ("listen", "EADDRINUSE"),
    ("mkdtemp", "ENOSPC EROFS"),
    ("mmap", "ENOMEM"),
    ("open", "EMFILE ENFILE EACCES"),
    ("opendir", "EMFILE"),
    ("pidfd_open", "EMFILE ENOSYS"),
    ("pidfd_send_signal", "EPERM"),
    ("pipe2", "EMFILE ENFILE"),
    ("poll", "EINTR ENOMEM"),
    ("pthread_create", "EAGAIN"),
    ("read[pipe]", "EINTR EAGAIN"),
    ("read[signalfd]", "EINTR EAGAIN EIO"),
    ("read[socket]", "EINTR ECONNRESET ENOMEM"),
    ("recvmsg", "EINTR ENOBUFS"),
    ("setpgid", "EPERM"),
    ("setsockopt", "ENOBUFS"),
    ("signalfd", "EMFILE"),
    ("socket", "EMFILE ENFILE ENOBUFS"),
    ("timerfd", "EMFILE"),
    ("wait", "EINTR"),
    ("waitid", "EINTR"),
    ("write[socket]", "EINTR EAGAIN EPIPE ENOBUFS"),
    ("write[stdout]", "EINTR EAGAIN ENOSPC EIO EPIPE"),
]

# NIO makes these after a trial of the very same has just succeeded (Descriptors.shortage), and ends the process where
# they fail then.
BEHIND_THE_TRIAL = {"epoll_create": 1, "eventfd": 1, "timerfd": 1}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["front", "socket"])
@pytest.mark.parametrize(("call", "error"), [(call, error) for call, errors in CALLS for error in errors.split()])
def test_each_of_its_calls_fails_once(story, capsys, call, error, mode):
    [made] = story(f"{call}=0@1", mode=mode).seen
    made = min(made, FIRST, BEHIND_THE_TRIAL.get(call, FIRST))
    outcomes, unlawful = [], []
    for number in range(1, made + 1):
        told = story(f"{call}={error}@{number}", mode=mode)
        outcomes.append("." if told.code == 0 and told.generation == 2 else "r" if told.code == 0 else str(told.code))
        try:
            told.is_lawful()
            told.starts_again()
        except AssertionError as problem:
            outcomes[-1] += "!"
            unlawful.append(f"{call}={error}@{number}: {problem}")
    with capsys.disabled():
        print(f"\n{call + '=' + error:28} {mode:7} {' '.join(outcomes) or 'never called'}", end=" ")
    assert not unlawful, "\n".join(unlawful)
