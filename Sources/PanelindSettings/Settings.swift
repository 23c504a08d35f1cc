//  Settings.swift
//  The settings as the rest of the daemon gets them: typed, expanded, resolved, in agreement with each other.
//  Secrets are paths here, never content. Made by Loader.swift; read after PanelindCore/SupervisorSettings.swift.

import PanelindCore

/// All effective settings (CONTRACT section 2).
public struct Settings: Hashable, Sendable {
    public var platform: Platform
    public var worker: WorkerProcess
    public var serve: Serve
    public var sidecar: Sidecar
    public var probe: Probes
    public var restart: RestartSettings
    public var stop: StopSettings
    public var log: Log
    public var control: Control

    /// `worker.*` but for what the machine judges by.
    public struct WorkerProcess: Hashable, Sendable {
        /// At least one; placeholders are pieces, all else is expanded.
        public var command: [CommandArgument]
        /// Absolute.
        public var directory: String
        /// Added to panelind's own environment, in the order of the source, expanded.
        public var environment: [NamedText]
        /// Variable and absolute path of the file (`readSecret`).
        public var secrets: [NamedText]
        public var requiredEnvironment: [String]
        public var identity: Identity
        public var stdin: StandardInput
        public var limits: Limits
        public var watchdog: Duration?
    }

    /// Who the worker runs as; nil is as panelind.
    public struct Identity: Hashable, Sendable {
        public var uid: UInt32?
        public var gid: UInt32?
        /// Supplementary groups (setgroups(2)); nil leaves panelind's.
        public var groups: [UInt32]?
        /// For USER and LOGNAME, where the user has a name.
        public var userName: String?

        /// Nothing to change.
        public var isUnchanged: Bool { uid == nil && gid == nil && groups == nil }
    }

    /// `worker.limits` (getrlimit(2)).
    public struct Limits: Hashable, Sendable {
        /// The word for RLIM_INFINITY.
        public static let unlimited = UInt64.max
        /// Nil leaves panelind's own.
        public var openFiles: UInt64?
        public var processes: UInt64?
        /// Bytes.
        public var core: UInt64?
        /// Bytes.
        public var addressSpace: UInt64?
    }

    /// `serve.*`
    public struct Serve: Hashable, Sendable {
        public var mode: ServeMode
        /// How a worker learns its address; nil: it is not told.
        public var placeholder: Placeholder?
        /// Of panelind; unused in direct mode. Host names are resolved, unix paths absolute.
        public var listen: ListenAddress
        /// Where a worker serves that cannot be told.
        public var upstream: ListenAddress?
        /// The worker's PORT in direct mode.
        public var directPort: Int?
        public var healthPath: String?
        public var readyPath: String?
        public var hold: Duration
        public var heldRequests: Int
        public var concurrency: Int
        /// Bytes; nil for none.
        public var bodyLimit: Int?
        public var headerTimeout: Duration
        public var idleTimeout: Duration
        public var responseTimeout: Duration?
        public var trustedProxies: [TrustedProxy]
    }

    /// The kind of placeholder in `worker.command`.
    public enum Placeholder: String, Hashable, Sendable, CaseIterable {
        case socket, port
        case descriptor = "fd"
    }

    /// `sidecar.*`
    public struct Sidecar: Hashable, Sendable {
        /// Nil for none.
        public var listen: ListenAddress?
        /// Nobody wrote it: taken on local, a free port does (CONTRACT section 2).
        public var isDefault: Bool
    }

    /// `probe.*`
    public struct Probes: Hashable, Sendable {
        public var startup: ProbeSettings?
        public var readiness: ProbeSettings?
        public var liveness: ProbeSettings?
        public var startupDeadline: Duration
    }

    /// `log.*`
    public struct Log: Hashable, Sendable {
        public var format: LogFormat
        public var level: LogLevel
        /// Bytes.
        public var lineLimit: Int
        /// Bytes.
        public var buffer: Int
        public var overflow: LogOverflow
        public var access: AccessLog
        public var slow: Duration
        /// Nil: not known yet; on cloudrun the metadata server knows.
        public var project: String?
    }

    /// `control.*`
    public struct Control: Hashable, Sendable {
        /// Absolute paths in the order to try them; none for `none`.
        public var candidates: [String]
        /// Written by somebody: not writable is worth an error, not only a warning.
        public var isGiven: Bool
    }
}

extension Settings {
    /// What the machine must know, under the number of this configuration.
    ///
    /// `adoptsOrphans` and `watchdogPing` are the caller's to set: they are facts, not settings.
    public func supervisorSettings(revision: Int) -> SupervisorSettings {
        var settings = SupervisorSettings()
        settings.revision = revision
        settings.mode = serve.mode
        settings.worker.startup = probe.startup
        settings.worker.readiness = probe.readiness
        settings.worker.liveness = probe.liveness
        settings.worker.impliedReadiness = impliedReadiness
        settings.worker.startupDeadline = probe.startupDeadline
        settings.worker.watchdog = worker.watchdog
        settings.worker.needsPreparation = !worker.secrets.isEmpty
        settings.restart = restart
        settings.stop = stop
        settings.overlaps = overlaps
        settings.hold = serve.hold
        return settings
    }

    /// How readiness is known without `probe.readiness` (CONTRACT section 4).
    public var impliedReadiness: ImpliedReadiness {
        switch serve.mode {
        case .front, .socket:
            guard let path = serve.readyPath else { return .ask(ProbeSettings(.tcp(""))) }
            var probe = ProbeSettings(.http(path))
            probe.passesBelow500 = true
            return .ask(probe)
        case .direct:
            return serve.directPort == nil ? .alive(.seconds(1)) : .ask(ProbeSettings(.tcp("")))
        }
    }

    /// A reload may run two workers side by side (CONTRACT section 5, Reload).
    public var overlaps: Bool {
        switch serve.mode {
        case .direct: return false
        case .front: return serve.placeholder != nil
        case .socket:
            // A question through the shared socket could be answered by the other generation.
            let probes = [probe.startup, probe.readiness].compactMap { $0 }
            return !probes.isEmpty
                && probes.allSatisfy { probe in
                    switch probe.method {
                    case .notify, .descriptor, .exec, .log: true
                    case .http, .tcp: false
                    }
                }
        }
    }

    /// The environment a worker's settings see: panelind's own with the added variables, without secrets.
    public func workerEnvironment(from own: [String: String]) -> [String: String] {
        PanelindSettings.workerEnvironment(own, adding: worker.environment)
    }
}

/// Panelind's own environment with the added variables.
func workerEnvironment(_ own: [String: String], adding: [NamedText]) -> [String: String] {
    own.merging(adding.map { ($0.name, $0.text) }) { $1 }
}
