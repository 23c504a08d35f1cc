//  Notify.swift
//  Messages on the notify socket: read as a slow reader reads them, and what the machine makes of them.
//  Read PanelindSystem/NotifySocket.swift first.

import PanelindCore
import PanelindSystem

/// Datagrams of sd_notify(3).
public final class NotifyTarget: FuzzTarget {
    public static let name = "notify"
    public static let words = [
        "READY=1", "\n", "\r\n", "=", "STATUS=", "RELOADING=1", "STOPPING=1", "WATCHDOG=1", "WATCHDOG=trigger",
        "BARRIER=1",
        "EXTEND_TIMEOUT_USEC=", "MAINPID=", "ERRNO=2", "FDSTORE=1", "\0", "9223372036854775807", "9223372036854775808",
        "-1", "0", "+5", " ", "\u{301}", "\u{e9}", "READY=0", "X_A=", "MONOTONIC_USEC=1",
    ]

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        let lines = [
            "READY=1", "STATUS=waiting for \u{e9}", "WATCHDOG=1", "WATCHDOG=trigger", "EXTEND_TIMEOUT_USEC=1000000",
            "MAINPID=4711", "RELOADING=1\nMONOTONIC_USEC=5", "STOPPING=1", "BARRIER=1", "X=y", "READY=1=1", "=1",
            "READY",
        ]
        return Array(
            (dice.some(lines, upTo: 5, dice.pick(["\n", "\n", "\r\n", "\n\n"])) + dice.pick(["", "\n", "\0"])).utf8)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let found = NotifySocket.parse(input[...])
        let expected = Self.reference(input)
        guard found == expected else {
            return "\(found.map { "\($0)" } ?? "nothing"), not \(expected.map { "\($0)" } ?? "nothing")"
        }
        return Self.effect(found ?? [], &dice)
    }

    /// Lines by hand.
    private static func reference(_ input: [UInt8]) -> [NotifyMessage.Assignment]? {
        var bytes = input
        if bytes.last == 0 { bytes.removeLast() }
        if bytes.contains(0) { return nil }
        guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
        var found: [NotifyMessage.Assignment] = []
        var key = "", value = ""
        var isValue = false
        for scalar in Array(text.unicodeScalars) + ["\n"] {
            if scalar == "\n" || scalar == "\r" {
                if isValue, !key.isEmpty { found.append(NotifyMessage.Assignment(key, value)) }
                (key, value, isValue) = ("", "", false)
            } else if scalar == "=", !isValue {
                isValue = true
            } else if isValue {
                value.unicodeScalars.append(scalar)
            } else {
                key.unicodeScalars.append(scalar)
            }
        }
        return found
    }

    // MARK: the machine

    /// A machine with a worker, at some place of its life, hears all of it.
    private static func effect(_ assignments: [NotifyMessage.Assignment], _ dice: inout Dice) -> String? {
        var settings = SupervisorSettings()
        settings.mode = dice.pick([.front, .direct, .socket])
        if dice.once(in: 2) { settings.worker.watchdog = .seconds(5) }
        var machine = Supervisor(settings, seed: 1)
        var now = Instant.zero + .seconds(1000)
        let generation = Generation(1)
        func hear(_ event: Event) -> [Action] { machine.handle(event, at: now).actions }
        _ = hear(.operator(.start))
        if dice.once(in: 2) { _ = hear(.worker(generation, .prepared)) }
        if !dice.once(in: 4) { _ = hear(.worker(generation, .spawned(pid: 100))) }
        if dice.once(in: 6) { _ = hear(.operator(.stop(by: "SIGTERM"))) }
        for assignment in assignments {
            guard case .news(let news)? = assignment.meaning else { continue }
            if case .extendTimeout(let time) = news, time > .seconds(3600) { return "\(time) more time" }
            now = now + .milliseconds(dice.roll(200))
            let before = machine.state
            for action in hear(.worker(generation, .notified(news))) {
                switch action {
                case .worker(_, .spawn), .worker(_, .prepare), .exit: return "\(news) in \(before): \(action)"
                default: break
                }
            }
            if machine.generations != [generation] { return "\(news) in \(before): another worker" }
            if before == .stopping || before == .draining, machine.state == .ready { return "\(news) undoes a stop" }
        }
        return nil
    }
}
