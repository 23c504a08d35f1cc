//  Coverage.swift
//  Which event met which public state, and which call of Admission met which route, in all worlds that were run.
//  A pair that is never met is listed with the reason, or stands out as one that nobody thought of.

import PanelindCore

/// Counts of pairs.
public final class Coverage {
    /// The kinds of events, as the report names them.
    static let events = [
        "prepared", "prepareFailed", "spawned", "spawnFailed", "exited", "orphansReaped", "swept", "answered.startup",
        "answered.readiness", "answered.liveness", "notified.ready", "notified.reloading", "notified.stopping",
        "notified.status", "notified.watchdog", "notified.watchdogTrigger", "notified.extendTimeout", "logMatched",
        "descriptor", "front.drained", "front.onlyStreamsLeft", "start", "stop", "killNow", "restart", "reload", "pass",
        "suspend", "resume", "time", "flushed", "serviceBusy", "reloadRefused", "front.refused", "connection",
    ]
    /// The calls of Admission.
    static let calls = ["arrive", "answered", "lost", "ended", "take", "use", "report", "cut", "time"]
    static let routes = ["forward", "hold", "lastCall", "refuse"]

    private var pairs = [Int](repeating: 0, count: State.allCases.count * events.count)
    private var frontPairs = [Int](repeating: 0, count: routes.count * calls.count)
    private let states = Dictionary(uniqueKeysWithValues: State.allCases.enumerated().map { ($1, $0) })

    /// Makes a report in which nothing was met.
    public init() {}

    func note(_ step: Step) {
        guard let state = states[step.from] else { return }
        pairs[state * Self.events.count + Self.number(step.event)] += 1
    }

    func note(_ cause: AdmissionCause, _ route: Route) {
        let r =
            switch route {
            case .forward: 0
            case .hold: 1
            case .lastCall: 2
            case .refuse: 3
            }
        let c =
            switch cause {
            case .arrive: 0
            case .answered: 1
            case .lost: 2
            case .ended: 3
            case .take: 4
            case .use: 5
            case .report: 6
            case .cut: 7
            case .time: 8
            }
        frontPairs[r * Self.calls.count + c] += 1
    }

    /// The pairs that were never met, each with why, or with nil where nobody knows of a reason.
    public var missing: [(pair: String, reason: String?)] {
        var out: [(pair: String, reason: String?)] = []
        for (s, state) in State.allCases.enumerated() {
            for (e, event) in Self.events.enumerated() where pairs[s * Self.events.count + e] == 0 {
                out.append(("\(state) x \(event)", Self.why(state, event)))
            }
        }
        for (r, route) in Self.routes.enumerated() {
            for (c, call) in Self.calls.enumerated() where frontPairs[r * Self.calls.count + c] == 0 {
                out.append(("\(route) x \(call)", Self.whyNot(route, call)))
            }
        }
        return out
    }

    /// How many pairs there are, and how many were met.
    public var met: (pairs: Int, of: Int) {
        let all = pairs + frontPairs
        return (all.count { $0 > 0 }, all.count)
    }

    /// Why this pair is never met, or seldom.
    static func why(_ state: State, _ event: String) -> String? {
        switch (state, event) {
        case (.stopped, _): "only the output of a policy's own end is written there, which takes milliseconds"
        case (.starting, "flushed"), (.ready, "flushed"), (.unready, "flushed"), (.backoff, "flushed"),
            (.draining, "flushed"):
            "flush is asked for at the end only"
        case (.failed, "notified.ready"), (.failed, "notified.reloading"), (.failed, "notified.stopping"),
            (.failed, "notified.status"), (.failed, "notified.watchdog"), (.failed, "notified.watchdogTrigger"),
            (.failed, "notified.extendTimeout"), (.failed, "logMatched"), (.failed, "descriptor"):
            "the last worker was reaped behind all that it had said; only one on trial may still speak"
        case (.failed, "front.onlyStreamsLeft"), (.failed, "front.drained"):
            "only where the successor of a draining worker has already failed for good"
        case (.draining, "prepareFailed"), (.draining, "spawnFailed"), (.draining, "prepared"):
            "only of a successor on trial, or a second answer: a draining worker is long made"
        case (.draining, "logMatched"): "only of a successor on trial: what drains was ready before"
        default: nil
        }
    }

    /// Why this call never comes under this route.
    static func whyNot(_ route: String, _ call: String) -> String? {
        switch (route, call) {
        case (_, "use"): "a reload ends in the step in which its worker is ready, and the route comes first"
        case ("hold", "report"): "a drain begins with a stop, or with the step that makes a successor the route"
        case ("refuse", "time"): "nobody waits where all are refused, so nothing is due"
        default: nil
        }
    }

    private static func number(_ event: Event) -> Int {
        switch event {
        case .worker(_, let news): number(news)
        case .front(.refused): 33
        case .front(.drained): 19
        case .front(.onlyStreamsLeft): 20
        case .operator(let wish): number(wish)
        case .time: 29
        case .flushed: 30
        case .serviceBusy: 31
        }
    }

    private static func number(_ news: WorkerEvent) -> Int {
        switch news {
        case .prepared: 0
        case .prepareFailed: 1
        case .spawned: 2
        case .spawnFailed: 3
        case .exited: 4
        case .orphansReaped: 5
        case .swept: 6
        case .answered(.startup, _, _): 7
        case .answered(.readiness, _, _): 8
        case .answered(.liveness, _, _): 9
        case .answered(.connection, _, _): 34
        case .notified(.ready): 10
        case .notified(.reloading): 11
        case .notified(.stopping): 12
        case .notified(.status): 13
        case .notified(.watchdog): 14
        case .notified(.watchdogTrigger): 15
        case .notified(.extendTimeout): 16
        case .logMatched: 17
        case .descriptor: 18
        }
    }

    private static func number(_ wish: OperatorEvent) -> Int {
        switch wish {
        case .start: 21
        case .stop: 22
        case .killNow: 23
        case .restart: 24
        case .reload: 25
        case .reloadRefused: 32
        case .pass: 26
        case .suspend: 27
        case .resume: 28
        }
    }
}
