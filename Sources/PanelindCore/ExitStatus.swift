//  ExitStatus.swift
//  How a process ended, why a worker ended, and what it used.
//  The names of `ExitCause` are those of CONTRACT section 8. Read after Signal.swift.

/// How one process ended (waitid(2)).
public enum ExitStatus: Hashable, Sendable, CustomStringConvertible {
    /// It called exit with this code, 0...255.
    case code(Int32)
    /// A signal ended it.
    case signal(Signal, coreDumped: Bool)

    /// The code a shell would report: the code itself, or 128 + signal.
    public var shellCode: Int32 {
        switch self {
        case .code(let code): code
        case .signal(let signal, _): 128 + signal.number
        }
    }

    /// `exit 3`, `SIGSEGV`, `SIGSEGV, core dumped`.
    public var description: String {
        switch self {
        case .code(let code): "exit \(code)"
        case .signal(let signal, let core): core ? "\(signal), core dumped" : "\(signal)"
        }
    }
}

/// Why a worker ended, as `worker_exited` and the metrics say it.
public enum ExitCause: String, Hashable, Sendable, CaseIterable {
    case exit
    case signal
    case oom
    case portInUse = "port_in_use"
    case notFound = "not_found"
    case startupDeadline = "startup_deadline"
    case liveness
    case watchdog
    case permanent
    case requested
}

/// What a worker's leader used, from wait4(2).
public struct ResourceUse: Hashable, Sendable {
    /// Peak resident memory in bytes.
    public var maxRSSBytes: Int64
    /// CPU time in user mode.
    public var userCPU: Duration
    /// CPU time in the kernel.
    public var systemCPU: Duration

    /// Makes a record of use; zero for a worker that never ran.
    public init(maxRSSBytes: Int64 = 0, userCPU: Duration = .zero, systemCPU: Duration = .zero) {
        self.maxRSSBytes = maxRSSBytes
        self.userCPU = userCPU
        self.systemCPU = systemCPU
    }
}

/// A process of a worker's tree that had to be killed, or could not be.
public struct Survivor: Hashable, Sendable {
    /// Its process id when it was seen.
    public var pid: Int32
    /// Its command line, arguments separated by spaces, at most 256 bytes.
    public var command: String
    /// In uninterruptible sleep (state D of proc(5)): reported, not waited for.
    public var uninterruptible: Bool

    /// Makes a survivor as the sweep saw it.
    public init(pid: Int32, command: String, uninterruptible: Bool = false) {
        self.pid = pid
        self.command = command
        self.uninterruptible = uninterruptible
    }
}

/// A worker could not be started: which step said what.
public struct StartFailure: Error, Hashable, Sendable {
    /// What kind of failure, as far as a decision depends on it.
    public enum Kind: Hashable, Sendable {
        /// The command does not exist (ENOENT of exec): 127.
        case notFound
        /// The command cannot be executed (EACCES, ENOEXEC of exec): 126.
        case notExecutable
        /// No process could be created (EAGAIN, ENOMEM of clone): 71 at the first start.
        case noProcess
        /// Anything else: a secret, a directory, a limit, a user.
        case other
    }
    /// What kind of failure.
    public var kind: Kind
    /// A sentence without a full stop: `cannot start worker "/x/y": no such file (ENOENT)`.
    public var message: String

    /// Makes a failure.
    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }
}
