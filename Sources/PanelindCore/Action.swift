//  Action.swift
//  Everything the machine can ask for: imperative verbs with plain data.
//  Each says which event answers it. Performing one never calls the machine: answers are enqueued.

/// Something the shell is asked to do.
public enum Action: Hashable, Sendable {
    /// For one worker.
    case worker(Generation, WorkerAction)
    /// For the front. Only `reportDrain` is answered.
    case front(FrontAction)
    /// Answer /health and /ready from this.
    case publish(HealthSnapshot)
    /// Tell systemd.
    case notify(ServiceNotice)
    /// Write a record of panelind's own.
    case report(Report)
    /// Write out everything captured. Answered by `flushed`.
    case flush
    /// Stop panelind itself (SIGSTOP). `resume` follows when somebody continues it.
    case suspendSelf
    /// End the process with this code. Nothing follows.
    case exit(Int32)
}

/// What is done to one worker.
public enum WorkerAction: Hashable, Sendable {
    /// Read secrets and look for the command, under the settings of this revision. Answered by `prepared` or
    /// `prepareFailed`.
    case prepare(revision: Int)
    /// Make the process. Answered by `spawned` or `spawnFailed`.
    case spawn(revision: Int)
    /// Send a signal to the leader or its group. Not answered.
    case signal(Signal, SignalTarget)
    /// Send a signal (nil: only look) to every process of the tree, once; `sparingGroup` leaves out the leader's
    /// group, which had the signal already. Answered by `swept`.
    case sweep(Signal?, sparingGroup: Bool)
    /// Make one attempt of a probe. Answered by `answered` with the same attempt.
    case ask(ProbeKind, attempt: Int, ProbeSettings)
    /// Drop an attempt: close its connection, kill its command. Not answered.
    case abandon(ProbeKind, attempt: Int)
    /// The generation is gone: release what is kept for it. Not answered.
    case forget
}

/// What is asked of the front.
public enum FrontAction: Hashable, Sendable {
    /// Send requests there from now on.
    case route(Route)
    /// Say `drained` or `onlyStreamsLeft` as soon as it is true of this generation.
    case reportDrain(Generation)
    /// End what is still in flight: 504 for an answer not begun, abort for one begun.
    case cut(Generation)
    /// Drop idle upstream connections: the clock made a gap.
    case dropIdle
}

/// What systemd is told (sd_notify(3)).
public enum ServiceNotice: Hashable, Sendable {
    case ready
    case reloading
    case stopping
    case status(String)
    case extendTimeout(Duration)
    /// The loop, its timer and the reaper work: said behind a look for dead children in the same turn.
    case watchdog
    /// Once more what systemd did not take before.
    case kept
}

/// A record of panelind's own; the names are the events of CONTRACT section 8.
public enum Report: Hashable, Sendable {
    case workerStarted(Generation, pid: Int32)
    case workerReady(Generation, after: Duration)
    case workerUnready(Generation, reason: String)
    indirect case workerExited(Generation, Ending, restartIn: Duration?)
    case workerBackoff(Generation, delay: Duration, Rule)
    case workerFailed(Generation, Rule)
    /// Processes that outlived their leader and were killed.
    case survivorsKilled(Generation, [Survivor])
    /// Processes that even KILL did not end in time.
    case survivorsLeft(Generation, [Survivor])
    /// Before first ready a failing attempt is the normal case.
    case probeFailed(Generation, ProbeKind, reason: String, consecutive: Int, beforeReady: Bool)
    case drainBegin(Generation, budget: Duration)
    case drainEnd(Generation, Rule)
    case reloadBegin(Generation)
    case reloadEnd(Generation, failure: String?)
    case clockGap(Duration)
    /// Everything is gone; only the output is still to be written.
    case panelindStopped(code: Int32)
}

/// How a worker ended, once its leader is gone or it could not be started.
public struct Ending: Hashable, Sendable {
    /// Zero if no process was made.
    public var pid: Int32
    /// Nil if no process was made, or KILL did not end it in time.
    public var status: ExitStatus?
    public var cause: ExitCause
    /// Set if no process was made.
    public var failure: StartFailure?
    public var use: ResourceUse
    /// From the spawn to the end.
    public var uptime: Duration
    /// It was ready at least once.
    public var wasReady: Bool
    /// The longest unbroken time of readiness.
    public var readyFor: Duration
    /// Somebody asked for this end: a stop, a restart, a reload.
    public var requested: Bool

    /// `SIGSEGV, core dumped`, `exit 3`, or why it could not start.
    public var text: String {
        if let status { return "\(status)" }
        return failure?.message ?? "not seen to end"
    }
}
