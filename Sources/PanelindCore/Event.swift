//  Event.swift
//  Everything that can happen, by family; who sends it.
//  The machine hears nothing else. Read beside Action.swift.

/// Something that happened outside the machine.
public enum Event: Hashable, Sendable {
    /// About one worker; the generation decides which slot hears it.
    case worker(Generation, WorkerEvent)
    /// From the front.
    case front(FrontEvent)
    /// From a signal, the control socket or the start of the program.
    case `operator`(OperatorEvent)
    /// The deadline fired.
    case time
    /// The output thread has written what it had, as `flush` asked.
    case flushed
    /// systemd takes no more messages now; what is kept is to be sent again.
    case serviceBusy
}

/// News of one worker.
public enum WorkerEvent: Hashable, Sendable {
    /// Answers `prepare`.
    case prepared
    /// Answers `prepare`: a secret, a directory or the command is not there.
    case prepareFailed(StartFailure)
    /// Answers `spawn`.
    case spawned(pid: Int32)
    /// Answers `spawn`: no process runs.
    case spawnFailed(StartFailure)
    /// The leader was reaped. `oom`: the kernel killed in our cgroup since it started.
    case exited(ExitStatus, ResourceUse, oom: Bool)
    /// Descendants whose parents are gone were reaped: a sweep may find fewer.
    case orphansReaped
    /// Answers `sweep`: who is left alive of the tree, and who was sent KILL in this pass.
    case swept(left: [Survivor], killed: [Survivor])
    /// Answers `ask`; a late attempt is ignored.
    case answered(ProbeKind, attempt: Int, ProbeOutcome)
    /// A message of its notify socket, from its tree.
    case notified(Notification)
    /// A line of output matched `probe.startup.log`.
    case logMatched
    /// A newline came (true), or the end without one (false), on `probe.*.fd`.
    case descriptor(ready: Bool)
}

/// What one attempt of a probe found.
public enum ProbeOutcome: Hashable, Sendable {
    case passed
    /// Why not, in a few words: `HTTP 503`, `connection refused`, `no answer in 1s`.
    case failed(String)
}

/// What a worker says of itself (sd_notify(3)).
public enum Notification: Hashable, Sendable {
    case ready
    case reloading
    case stopping
    case status(String)
    case watchdog
    case watchdogTrigger
    case extendTimeout(Duration)
}

/// What the front says.
public enum FrontEvent: Hashable, Sendable {
    /// This generation's address took no connection: nobody listens there, or not for panelind.
    case refused(Generation)
    /// Answers `reportDrain`: nothing is in flight to this generation.
    case drained(Generation)
    /// Answers `reportDrain`: only upgraded connections and event streams are.
    case onlyStreamsLeft(Generation)
}

/// What somebody wants.
public enum OperatorEvent: Hashable, Sendable {
    /// The program is set up: start the first worker.
    case start
    /// End everything within the budget. The word says who asked: `SIGTERM`, `panelind stop`.
    case stop(by: String)
    /// End everything now (a second Ctrl-C).
    case killNow
    /// Replace the worker at once, whatever it does.
    case restart
    /// Replace the worker by one with these settings, without losing a request. Indirect: events stay small.
    indirect case reload(SupervisorSettings)
    /// A reload was asked for whose configuration is bad: nothing changes, and whoever waits for its end is told.
    case reloadRefused(String)
    /// Pass this on to the worker's leader.
    case pass(Signal)
    /// Stop the worker's group, then panelind (SIGTSTP).
    case suspend
    /// Go on after a suspension (SIGCONT).
    case resume
}
