//  Launch.swift
//  From settings to one process: its environment, its arguments, its descriptors (CONTRACT section 6).
//  Secrets pass through here on their way into the child's environment and nowhere else.

import Glibc
import PanelindCore
import PanelindSettings
import PanelindSystem

/// What one worker's start needs besides its settings.
struct Launch {
    /// Variables of systemd's that are about panelind, never about its worker.
    static let systemdVariables: Set<String> = [
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
        "SYSTEMD_EXEC_PID", "FDSTORE", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "MANAGERPID",
    ]

    let settings: Settings
    /// Panelind's own environment.
    let environment: [String: String]
    let secrets: [NamedText]
    let notifyPath: String?
    /// The worker's private address in front mode.
    var socketPath: String?
    var port: UInt16?

    /// The request for the leader, but for its output and its sockets.
    func request() -> Result<SpawnRequest, StartFailure> {
        let arguments = settings.worker.command.map {
            $0.filled(socket: socketPath ?? "", port: Int(port ?? 0), descriptor: 3)
        }
        let variables = workerVariables()
        let searchPath = variables["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
        guard let name = arguments.first else {
            return .failure(StartFailure(.notFound, "cannot start worker: worker.command is empty"))
        }
        let executable: String
        switch SpawnRequest.resolve(name, searchPath: searchPath, directory: settings.worker.directory) {
        case .found(let path): executable = path
        case .failed(let failure): return .failure(failure)
        }
        var request = SpawnRequest(
            executable: executable, arguments: arguments, environment: variables.map { "\($0)=\($1)" },
            directory: settings.worker.directory)
        request.standardInput = settings.worker.stdin == .inherit ? .inherit : .null
        // With the terminal shared, its keys reach the worker themselves (CONTRACT section 2, worker.stdin).
        request.newProcessGroup = settings.worker.stdin != .inherit
        request.setsListenPID = settings.serve.mode == .socket
        request.setsWatchdogPID = settings.worker.watchdog != nil
        request.credentials = settings.worker.identity.credentials
        let limits = settings.worker.limits
        for (resource, value) in [
            (SpawnRequest.Limit.Resource.openFiles, limits.openFiles), (.processes, limits.processes),
            (.core, limits.core), (.addressSpace, limits.addressSpace),
        ] {
            if let value { request.limits.append(.init(resource, value)) }
        }
        return .success(request)
    }

    /// The worker's whole environment, without what names its own pid.
    private func workerVariables() -> [String: String] {
        var own = environment.filter { !Self.systemdVariables.contains($0.key) }
        if settings.log.format != .inherit { own["JOURNAL_STREAM"] = nil }
        if let user = settings.worker.identity.userName {
            own["USER"] = user
            own["LOGNAME"] = user
        }
        var variables = settings.workerEnvironment(from: own)
        for secret in secrets { variables[secret.name] = secret.text }
        variables["PANELIND_STOP_SECONDS"] = "\(max(1, settings.stop.grace.nanoseconds / 1_000_000_000))"
        if let notifyPath { variables["NOTIFY_SOCKET"] = notifyPath }
        if let watchdog = settings.worker.watchdog {
            variables["WATCHDOG_USEC"] = "\(watchdog.nanoseconds / 1000)"
        }
        switch settings.serve.mode {
        case .direct:
            break  // PORT is panelind's own, as it came.
        case .socket:
            variables["PORT"] = nil
            variables["LISTEN_FDS"] = "1"
            variables["LISTEN_FDNAMES"] = "http"
        case .front:
            variables["PORT"] = (port.map { Int($0) } ?? settings.serve.upstream?.port).map(String.init)
            if let socketPath {
                variables["PANELIND_SOCKET"] = socketPath
                if variables["FORWARDED_ALLOW_IPS"] == nil { variables["FORWARDED_ALLOW_IPS"] = "*" }
            }
        }
        return variables
    }
}

/// Reads the secrets of one start, afresh. May hang on a network mount: never on the main thread.
func readSecrets(_ settings: Settings) -> Result<[NamedText], StartFailure> {
    var secrets: [NamedText] = []
    for secret in settings.worker.secrets {
        switch readSecret(secret.text, .real) {
        case .success(let text): secrets.append(NamedText(secret.name, text))
        case .failure(let error):
            return .failure(StartFailure(.other, "cannot start worker: \(secret.name): \(error.message)"))
        }
    }
    return .success(secrets)
}

extension Settings.Identity {
    /// What the worker and its probes change to; nil leaves all as panelind has it. A group alone keeps the user.
    var credentials: SpawnRequest.Credentials? {
        guard !isUnchanged else { return nil }
        return .init(uid: uid ?? geteuid(), gid: gid ?? getegid(), groups: groups ?? [])
    }
}
