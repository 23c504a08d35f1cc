//  Language.swift
//  The script's language in words; `scripted-worker help` prints it.
//  Parser.swift reads it, Worker.swift obeys it. Read this first.

/// Every step, its arguments and what it does: the manual of this program.
let language = """
    scripted-worker STEP…        obeys the steps in order, then serves or sleeps until it is ended.

    Steps are words; times are written 250ms, 1s, 1.5s, 1m, sizes 4096, 64KiB, 200MiB; signals TERM, SIGTERM or 15.
    An unknown step ends with 64 before anything is done. Everything runs in one thread around one poll.
    Where a step wants STEP, `begin STEP… end` makes several of them one. Signals not named keep their defaults.

    order       boot T                    wait, then the next step       sleep T        live so long, then exit 0
                wait-file PATH            go on when the file exists     drain          stop accepting, finish requests
                STEP after T              do it T from now and go on     every T [for T] STEP    again and again
                NAME-after T ARGS…        the same: exit-after 200ms 3, listen-after 1s 8080, notify-after 1s READY=1
                tag NAME                  does nothing; every descendant carries it on its command line
    ends        exit CODE    signal-self SIGNAL    stop-self (SIGSTOP)
    signals     ignore SIGNAL    on SIGNAL STEP (adds up: on TERM print bye on TERM exit 0 after 100ms)
                record-signals FILE       a line `pid nanoseconds SIGNAME` for each; then TERM, INT and ABRT end it,
                                          TSTP stops it and the others do nothing, unless `on` or `ignore` says more
    serving     listen PORT | HOST:PORT | env | env:NAME | fd N | unix PATH | activated
                                          env is $PORT; activated is the first of LISTEN_FDS, if LISTEN_PID is ours;
                                          without a host 127.0.0.1; a taken port: a message and exit 1
                health CODE | hang | status-file PATH     how GET /ready answers: 200 unless told; the file has a code
                ready | unready           /ready is 200 | 503; where `ready` comes in a script, it begins with 503
                hang                      no serving and no further step, yet alive; signals are still heard
                stop-listening            closes the listeners, finishes nothing
    readiness   notify TEXT (READY=1, STATUS=…; \\n in it is a newline)    barrier (BARRIER=1, goes on when answered)
                notify-from-child TEXT    a child sends it and lives on
                mainpid-child             a child that lives on, and MAINPID= of it
                watchdog every T [for T]  WATCHDOG=1
                ready-fd N                a newline into the descriptor, and closed
                ready-fd-close N          closed without one           write-fd N TEXT    no newline added, left open
    output      print TEXT [to stderr]    print N lines [bytes B] [to stderr]: `line 1` …, padded with dots to B
                print-text TEXT [to stderr]    also where TEXT is a number      partial TEXT [to stderr]    no newline
                binary                    all 256 bytes and a newline  flood [SIZE] [to stderr]   numbered lines of 100
                close-output              stdout and stderr to /dev/null
    tree        child STEP                in our group                 children N STEP       N of them
                setsid-child STEP         in a session of its own      fork-orphans N STEP   their parent has left
                daemonize-child STEP      its own session, not its leader, its parent has left
                child-holds-stdout        a child with only our stdout
                child-holds-listener      a child with only our first listener, as descriptor 3; it never accepts
                fork-bomb N               N descendants, each the parent of two, as fast as they come
                hop N T                   one descendant at a time: after T a successor in a new session, then exit
                zombie                    a child that has ended and is not reaped
    resources   spin [T]                  burns a CPU, hears nothing   allocate SIZE         touched and kept
    evidence    record FILE TEXT          appends `pid nanoseconds TEXT` (CLOCK_MONOTONIC) in one write
                dump-state FILE           JSON of what we inherited: pid, ppid, pgid, sid, uid, gid, groups, umask, cwd,
                                          argv, sig_blk, sig_ign, fds with targets, limits, environment (of LISTEN_,
                                          NOTIFY_, PANELIND_, WATCHDOG_, TEST_, PORT, FORWARDED_ALLOW_IPS) and
                                          environment_names; the file appears whole

    Descendants are this program again: own script, stdin /dev/null, our stdout and stderr, no other descriptor, default
    dispositions, empty mask; they live until their steps say otherwise or they are ended. Those that end are reaped.

    HTTP/1.1 on every listener, keep-alive, bodies with Content-Length or chunked, Expect:
    /  /health  200                       /ready  as above               /status?set=503    changes /ready
    /slow?ms=N  later                     /hang  never; /aborted: how many clients left it, or /begin
    /answer?status=N
    /pid  /env?NAME  (404 unset)          /headers  the head as it came  /echo  the body     /count  the body's size
    /crash[?signal=SEGV]                  /exit?code=N                   /do  the body is a script, run at once
    /flood[?bytes=N]                      numbered lines; endless chunks without a number
    /stream[?n=N][&ms=T]                  server-sent events, every 100 ms, endless without n
    /begin[?bytes=N]                      claims 1000000 bytes, sends N (10), then says nothing
    /upgrade                              101, then every byte comes back

    """
