//  StatusReport.swift
//  /v1/status as JSON (CONTRACT section 9) and as aligned lines for people.
//  Pure. Read after Facts.swift and ControlRoom.swift.

import PanelindCore

/// The present state, ready to be written.
struct StatusReport {
    let facts: Facts
    let worker: ControlRoom.WorkerTimes?
    let lastExit: LoggedEvent?
    let nextStart: Instant?

    init(_ facts: Facts, _ room: ControlRoom) {
        self.facts = facts
        worker = room.worker(facts.serving)
        lastExit = room.lastExit
        nextStart = facts.health.state == .backoff ? room.nextStart : nil
    }

    private var uptime: Duration { facts.now - facts.startedAt }
    private var wait: Duration? { nextStart.map { max(.zero, $0 - facts.now) } }

    var json: JSON {
        let health = facts.health
        return .object([
            JSON.Member("status", .string(health.isReady ? "ready" : "not ready")),
            JSON.Member("state", .string(health.state.rawValue)),
            JSON.Member("reason", .string(orNull: health.state.reason?.rawValue)),
            JSON.Member("generation", .int(Int64(health.generation))),
            JSON.Member("restarts", .int(Int64(health.restarts))),
            JSON.Member("uptime_seconds", .double(Double(uptime.nanoseconds / 100_000_000) / 10)),
            JSON.Member("version", .string(facts.version)),
            JSON.Member("revision", .string(orNull: facts.revision)),
            JSON.Member("mode", .string(facts.mode.rawValue)),
            JSON.Member("platform", .string(facts.platform.rawValue)),
            JSON.Member("listen", .string(orNull: facts.listen)),
            JSON.Member("sidecar", .string(orNull: facts.sidecar)),
            JSON.Member("panelind_pid", .int(Int64(facts.pid))),
            JSON.Member("pid", .int(orNull: worker.map { Int(facts.servingPID ?? $0.pid) })),
            JSON.Member("started_at", .string(orNull: worker.map { Times.utc($0.startedWall) })),
            JSON.Member("ready_at", .string(orNull: worker?.readyWall.map(Times.utc))),
            JSON.Member("last_exit", lastExit?.record ?? .null),
            JSON.Member("next_restart_in_seconds", .seconds(wait?.seconds)),
            JSON.Member("in_flight", .int(Int64(facts.inFlight))), JSON.Member("held", .int(Int64(facts.held))),
            JSON.Member("worker_status", .string(orNull: facts.workerStatus)),
        ])
    }

    /// Name and value of each line for people.
    var rows: [(String, String)] {
        let health = facts.health
        var rows: [(String, String)] = [
            ("state", health.state.rawValue + (health.state.reason.map { " (\($0.rawValue))" } ?? ""))
        ]
        rows.append(("worker", "g\(facts.serving ?? health.generation)" + process))
        if let status = facts.workerStatus { rows.append(("says", status.withoutControls)) }
        rows.append(("command", facts.command.withoutControls))
        if let wait { rows.append(("next start", "in \(Times.span(wait))")) }
        rows.append(("restarts", "\(health.restarts)"))
        if let lastExit {
            let time = Times.local(lastExit.time, now: facts.wall)
            rows.append(("last exit", "\(time)  \(lastExit.message.withoutControls)"))
        }
        rows.append(("serving", "\(facts.listen ?? "by the worker itself") (\(facts.mode.rawValue) mode)"))
        if let sidecar = facts.sidecar { rows.append(("sidecar", sidecar)) }
        if facts.mode == .front { rows.append(("requests", "\(facts.inFlight) in flight, \(facts.held) held")) }
        let revision = facts.revision.map { ", revision \($0)" } ?? ""
        rows.append(
            (
                "panelind",
                "\(facts.version), pid \(facts.pid), up \(Times.span(uptime)), \(facts.platform.rawValue)\(revision)"
            ))
        return rows
    }

    private var process: String {
        guard let worker else { return ", no process" }
        let age = Times.span(.nanoseconds(facts.wall - worker.startedWall))
        let ready = worker.readyWall.map { ", ready for \(Times.span(.nanoseconds(facts.wall - $0)))" } ?? ""
        return ", pid \(facts.servingPID ?? worker.pid), up \(age)\(ready)"
    }

    /// Aligned lines for people.
    var text: String {
        rows.map { name, value in
            name + String(repeating: " ", count: 12 - name.utf8.count) + value + "\n"
        }.joined()
    }
}
