//  Notices.swift
//  What systemd is told, when it is told: kept in order, sent at the end of a turn, again while it takes nothing.
//  The machine decides what is said and when it is tried again (CONTRACT section 7). Read after Performer.swift.

import PanelindCore
import PanelindOutput
import PanelindSettings
import PanelindSystem

/// Messages on their way to systemd.
final class Notices {
    /// More wait only where systemd has not run for a long time; then the oldest are of no use.
    private static let bound = 32
    /// Out of what the machine keeps for the exit itself.
    private static let barrier: Duration = .milliseconds(30)

    private let manager: ServiceManager
    private let warn: (String) -> Void
    private var waiting: [(notice: ServiceNotice, text: String)] = []
    private var isBusy = false
    private var hasSent = false
    /// The last message failed, and somebody was told.
    private var isFailing = false
    private var knowsLibrary = false

    /// Nil where nobody listens for notifications.
    init?(_ environment: [String: String], warn: @escaping (String) -> Void) {
        guard let manager = ServiceManager(environment: environment) else { return nil }
        self.manager = manager
        self.warn = warn
    }

    /// Puts one behind those that wait.
    func add(_ notice: ServiceNotice, at now: Instant) {
        switch notice {
        case .kept:
            isBusy = false
            return
        // Of these only the newest says something.
        case .status: waiting.removeAll { if case .status = $0.notice { true } else { false } }
        case .watchdog: waiting.removeAll { $0.notice == .watchdog }
        case .ready, .reloading, .stopping, .extendTimeout: break
        }
        if waiting.count == Self.bound { waiting.removeFirst() }
        waiting.append((notice, notice.text(at: now)))
    }

    /// Sends what waits; true where systemd took no more, which the machine is to be told.
    func send() -> Bool {
        guard !isBusy, !waiting.isEmpty else { return false }
        if !knowsLibrary {
            knowsLibrary = true
            if let problem = SystemdLibrary.problem {
                warn(
                    "cannot load libsystemd: \(problem); systemd is told by plain messages, and the last of them may be"
                        + " lost; install libsystemd0")
            }
        }
        while let first = waiting.first {
            switch manager.send(first.text) {
            case .sent:
                hasSent = true
                isFailing = false
            case .busy:
                isBusy = true
                return true
            case .failed(let why):
                if !isFailing { warn(failure(why)) }
                isFailing = true
            }
            waiting.removeFirst()
        }
        return false
    }

    /// The last word before the exit.
    func finish() {
        isBusy = false
        let isStuck = send()
        if hasSent, !isStuck, !isFailing { manager.waitUntilReceived(atMost: Self.barrier) }
    }

    private func failure(_ why: String) -> String {
        let hint = SystemdLibrary.isBooted ? "" : "; systemd is not the init of this machine: unset NOTIFY_SOCKET"
        return "cannot notify systemd at NOTIFY_SOCKET=\(manager.path): \(why)\(hint)"
    }
}

extension ServiceNotice {
    /// The message (sd_notify(3)).
    func text(at now: Instant) -> String {
        switch self {
        case .ready: return "READY=1"
        // systemd takes the answer to its SIGHUP from the time in it.
        case .reloading: return "RELOADING=1\nMONOTONIC_USEC=\(now.nanoseconds / 1000)"
        case .stopping: return "STOPPING=1"
        case .extendTimeout(let duration): return "EXTEND_TIMEOUT_USEC=\(max(1, duration.nanoseconds / 1000))"
        case .watchdog: return "WATCHDOG=1"
        case .kept: return ""
        case .status(let sentence):
            // A line: what an error quotes may have more.
            let line = sentence.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? " " : Character($0) }
            return "STATUS=" + String(line.prefix(1000))
        }
    }
}

extension Performer {
    /// Tells systemd at the end of this turn; nobody, where none listens.
    func tellService(_ notice: ServiceNotice, at now: Instant) {
        if notice == .watchdog {
            // The ping proves the reaper too: what has died is taken first, and no ping comes where that fails.
            reap()
            guard children.reaperWorks else { return }
        }
        notices?.add(notice, at: now)
    }

    /// Sends what the turn had to say. True: the machine has an event to take.
    func sendNotices() -> Bool {
        guard notices?.send() == true else { return false }
        driver.enqueue(.serviceBusy)
        return true
    }
}

/// What systemd's variables ask of panelind itself, read once.
struct ServiceRequests {
    /// Half of the watchdog's timeout: one late ping is not yet a missed one.
    var watchdogPing: Duration?
    /// Worth a record each.
    var warnings: [String] = []

    /// More often would be work for nothing.
    static let shortestPing: Duration = .milliseconds(10)

    init(_ environment: [String: String], _ settings: Settings) {
        let watchdog = WatchdogRequest(environment: environment)
        if let warning = watchdog.warning { warnings.append(warning) }
        if let timeout = watchdog.timeout {
            if environment["NOTIFY_SOCKET", default: ""].isEmpty {
                warnings.append("WATCHDOG_USEC is not followed: without NOTIFY_SOCKET nobody hears WATCHDOG=1")
            } else {
                watchdogPing = max(timeout / 2, Self.shortestPing)
                if timeout < Self.shortestPing * 2 {
                    warnings.append(
                        "cannot keep a watchdog of \(timeout.text) (WATCHDOG_USEC): WATCHDOG=1 is sent every "
                            + "\(Self.shortestPing.text); set WatchdogSec to a second or more")
                }
            }
        }
        if let problem = listenVariablesProblem(environment) { warnings.append(problem) }
    }
}
