//  Descendants.swift
//  The tree below the worker: children, sessions, orphans, daemons, holders, zombies.
//  Read Worker.swift before it, and man 3 posix_spawn.

import Glibc

extension Worker {
    /// Makes the descendants of one step. Those whose parent has left come from a go-between that spawns them and ends.
    func spawn(_ kind: Descendant, count: Int, _ script: [String]) {
        switch kind {
        case .child, .session, .holdingStdout, .holdingListener:
            for _ in 0..<count { spawn(kind, script) }
        case .orphan: waitUntilGone(spawn(.child, ["children", "\(count)"] + script + ["exit", "0"]))
        case .daemon: waitUntilGone(spawn(.session, ["children", "\(count)"] + script + ["exit", "0"]))
        }
    }

    /// One descendant: this program again, with the tags and a script of its own.
    @discardableResult
    func spawn(_ kind: Descendant, _ script: [String]) -> pid_t {
        hear(SIGCHLD)
        let pid = launch(kind, script)
        children.insert(pid)
        // It may have ended before the set knew it.
        reap()
        return pid
    }

    /// A child that has ended and stays so until we do.
    func makeZombie() {
        let pid = launch(.child, ["exit", "0"])
        var information = siginfo_t()
        // Peek only: the next step finds a zombie, not a child about to become one.
        waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT)
    }

    /// Reaps what has ended, zombies made on purpose excepted.
    func reap() {
        for pid in children where waitpid(pid, nil, WNOHANG) == pid { children.remove(pid) }
    }

    /// The next step may count on it that the go-between is gone and reaped.
    private func waitUntilGone(_ pid: pid_t) {
        guard children.remove(pid) != nil else { return }
        while waitpid(pid, nil, 0) < 0 && errno == EINTR {}
    }

    private func launch(_ kind: Descendant, _ script: [String]) -> pid_t {
        closeInheritedOnExec()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        switch kind {
        case .child, .session, .orphan, .daemon: break
        case .holdingStdout: posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        case .holdingListener:
            guard let listener = server.firstListener else { fail("cannot give a child our listener: there is none") }
            posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
            posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
            // Onto itself too: dup2 here clears close-on-exec (posix_spawn_file_actions_adddup2(3)).
            posix_spawn_file_actions_adddup2(&actions, listener, 3)
        }

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        // POSIX_SPAWN_SETSID is 0x80 in glibc's spawn.h; the importer does not see it without _GNU_SOURCE.
        let session: Int32 = kind == .session ? 0x80 : 0
        let flags = session | Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
        posix_spawnattr_setflags(&attributes, Int16(flags))

        var words: [UnsafeMutablePointer<CChar>?] = (["scripted-worker"] + tags + script).map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        // The real path, not /proc/self/exe: the process would be called `exe`.
        guard let program = target(of: "/proc/self/exe") else { fail("cannot find our program: \(reason())") }
        var pid: pid_t = 0
        let error = posix_spawn(&pid, program, &actions, &attributes, &words, environ)
        if error != 0 { fail("cannot spawn \(script.joined(separator: " ")): \(reason(error))") }
        return pid
    }

    /// What we were given beyond stdio is ours, not our children's.
    private func closeInheritedOnExec() {
        for descriptor in inherited.descriptors.map(\.number) where descriptor > 2 { closeOnExec(descriptor) }
    }
}
