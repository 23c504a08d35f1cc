//  Equipment.swift
//  Steps of a machine that never ran, and a room that has heard them.
//  Read first.

@testable import PanelindControl
@testable import PanelindCore

let second: Int64 = 1_000_000_000

extension Ending {
    /// An end with this status; the rest as of a process that ran for 200 ms.
    static func made(
        _ status: ExitStatus? = .code(1), _ cause: ExitCause = .exit, wasReady: Bool = false, requested: Bool = false,
        failure: StartFailure? = nil
    ) -> Ending {
        Ending(
            pid: failure == nil ? 7 : 0, status: status, cause: cause, failure: failure, use: ResourceUse(),
            uptime: .milliseconds(200), wasReady: wasReady, readyFor: .zero, requested: requested)
    }
}

/// A room and its clock: each step comes a tenth of a second after the one before.
struct Story {
    let room = ControlRoom()
    var now = Instant(nanoseconds: 0)
    var state = State.starting

    mutating func pass(_ duration: Duration) { now = now + duration }

    mutating func step(_ event: Event = .time, to: State? = nil, rules: [Rule] = [], _ reports: [Report]) {
        pass(.milliseconds(100))
        let next = to ?? state
        room.take(
            Step(at: now, event: event, from: state, to: next, rules: rules, actions: reports.map { .report($0) }),
            wall: wall)
        state = next
        room.settle()
    }

    mutating func step(_ reports: [Report]) { step(.time, to: nil, rules: [], reports) }

    var wall: Int64 { 1_700_000_000 * second + now.nanoseconds }

    mutating func begin() { step(rules: [.firstStart], []) }
    mutating func started(_ g: Int) { step(to: .starting, [.workerStarted(Generation(g), pid: Int32(100 + g))]) }
    mutating func ready(_ g: Int) {
        step(to: .ready, rules: [.becameReady], [.workerReady(Generation(g), after: .milliseconds(100))])
    }

    /// It ended unasked, and the next start waits.
    mutating func ended(_ g: Int, _ ending: Ending = .made(), failures: Int = 1, lines: [String] = []) {
        step(
            to: .backoff, rules: [.leaderGone, .backoff(failures: failures, delay: .milliseconds(250))],
            [.workerExited(Generation(g), ending, restartIn: .milliseconds(250))])
        room.exitRecorded(generation: g, cause: ending.cause.rawValue, message: "", lines: lines)
    }

    func facts(serving: Int? = nil) -> Facts {
        Facts(
            version: "1.0.0", revision: nil, pid: 1, startedAt: .zero, now: now, wall: wall,
            health: HealthSnapshot(state: state, generation: serving ?? 0, restarts: 0, retryAfter: .seconds(1)),
            mode: .direct, platform: .local, listen: "port 8080", sidecar: nil, command: "uvicorn api:app",
            serving: serving, workerStatus: nil, startupDeadline: .seconds(60), stopBudget: .seconds(9))
    }

    func why(serving: Int? = nil, recent: [String] = []) -> Why {
        Why(facts(serving: serving), room, recent: recent)
    }
}
