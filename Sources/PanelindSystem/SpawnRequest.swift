//  SpawnRequest.swift
//  Everything one process starts with, resolved before: nothing here is looked up again.
//  Read Spawning.swift after it for the order of the steps.

import Glibc
import PanelindCore

/// Everything one process starts with.
public struct SpawnRequest: Sendable {
    /// What the child's stdin is.
    public enum Input: Hashable, Sendable {
        /// /dev/null.
        case null
        /// panelind's own: the child shares its terminal.
        case inherit
    }

    /// Who the child becomes.
    public struct Credentials: Hashable, Sendable {
        public var uid: UInt32
        public var gid: UInt32
        /// Supplementary groups, all of them (initgroups(3) is not called).
        public var groups: [UInt32]

        /// Makes the credentials to drop to.
        public init(uid: UInt32, gid: UInt32, groups: [UInt32]) {
            self.uid = uid
            self.gid = gid
            self.groups = groups
        }
    }

    /// A resource limit; soft and hard become the same value (setrlimit(2)).
    public struct Limit: Hashable, Sendable {
        public enum Resource: String, Hashable, Sendable, CaseIterable {
            case openFiles, processes, core, addressSpace

            var number: Int32 {
                switch self {
                case .openFiles: Int32(RLIMIT_NOFILE.rawValue)
                case .processes: Int32(__RLIMIT_NPROC.rawValue)
                case .core: Int32(RLIMIT_CORE.rawValue)
                case .addressSpace: Int32(RLIMIT_AS.rawValue)
                }
            }
        }
        public var resource: Resource
        /// Descriptors, processes or bytes; `UInt64.max` is unlimited.
        public var value: UInt64

        /// Makes a limit.
        public init(_ resource: Resource, _ value: UInt64) {
            self.resource = resource
            self.value = value
        }
    }

    /// A descriptor of ours under the number the child knows it by.
    public struct Lent: Hashable, Sendable {
        /// The number in the child, 3 or more.
        public var target: Int32
        /// Our number; it stays open here.
        public var source: Int32

        /// Makes a pair.
        public init(target: Int32, source: Int32) {
            self.target = target
            self.source = source
        }
    }

    /// The path to execute, already resolved; relative to `directory`. Nothing is searched, nothing goes to a shell.
    public var executable: String
    /// All arguments, the zeroth included.
    public var arguments: [String]
    /// `NAME=value`, complete: nothing is inherited.
    public var environment: [String]
    /// Where it starts; nil for our own directory.
    public var directory: String?
    public var standardInput: Input = .null
    /// A descriptor of ours; nil to inherit. It stays open here.
    public var standardOutput: Int32?
    /// A descriptor of ours; nil to inherit. It stays open here.
    public var standardError: Int32?
    /// Descriptors besides 0, 1 and 2, at most 64; all others are closed in the child.
    public var extraDescriptors: [Lent] = []
    /// Adds LISTEN_PID with the child's own pid (sd_listen_fds(3)).
    public var setsListenPID = false
    /// Adds WATCHDOG_PID with the child's own pid (sd_watchdog_enabled(3)).
    public var setsWatchdogPID = false
    /// The child leads a group of its own; false shares ours (a terminal's keys then reach both).
    public var newProcessGroup = true
    public var credentials: Credentials?
    public var limits: [Limit] = []
    /// How the child closes what was not given; tests force a fallback.
    var closing: Int32 = 0

    /// Makes a request for a process with a group of its own, stdin /dev/null and inherited output.
    public init(executable: String, arguments: [String], environment: [String] = [], directory: String? = nil) {
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
    }

    /// Sets or replaces a variable; it goes to the front, where a look at /proc/PID/environ finds it soonest.
    public mutating func setEnvironment(_ name: String, _ value: String) {
        let prefix = name + "="
        environment.removeAll { $0.hasPrefix(prefix) }
        environment.insert(prefix + value, at: 0)
    }

    /// Where a command was found.
    public enum Resolved: Hashable, Sendable {
        /// A path for `executable`.
        case found(String)
        /// Not found, or found but not to be executed.
        case failed(StartFailure)
    }

    /// Where the command is: itself when it has a slash, else its first executable in `searchPath`.
    ///
    /// - Parameters:
    ///   - searchPath: PATH of the worker; directories separated by colons, an empty one is the working directory.
    ///   - directory: the worker's working directory: a relative path is looked for there.
    public static func resolve(
        _ command: String, searchPath: String, directory: String?
    ) -> Resolved {
        func place(_ path: String) -> String {
            guard !path.hasPrefix("/"), let directory else { return path }
            return directory + "/" + path
        }
        func judge(_ path: String) -> SystemError? {
            var status = stat()
            if stat(place(path), &status) != 0 { return .last }
            if status.st_mode & S_IFMT == S_IFDIR { return SystemError(EISDIR) }
            // Judged with our rights; a worker that drops to a user may still be refused by exec.
            return access(place(path), X_OK) == 0 ? nil : .last
        }
        func failure(_ error: SystemError, _ place: String) -> StartFailure {
            let absent = error.number == ENOENT || error.number == ENOTDIR
            return StartFailure(
                absent ? .notFound : .notExecutable, "cannot start worker \"\(command)\": \(error)\(place)")
        }
        if command.isEmpty { return .failed(failure(SystemError(ENOENT), "")) }
        if command.contains("/") {
            if let error = judge(command) { return .failed(failure(error, "")) }
            return .found(command)
        }
        var refused: SystemError?
        for part in searchPath.split(separator: ":", omittingEmptySubsequences: false) {
            let path = part.isEmpty ? "./" + command : part + "/" + command
            guard let error = judge(path) else { return .found(path) }
            // As execvp(3): one that may not be executed is remembered, the search goes on.
            if error.number == EACCES { refused = error }
        }
        return .failed(failure(refused ?? SystemError(ENOENT), " in PATH=\(searchPath)"))
    }
}
