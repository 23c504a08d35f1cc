//  StopPlan.swift
//  How the budget of a stop is divided: delay, drain, grace and what is kept for the end.
//  Refuses set values that cannot fit (CONTRACT section 2, `stop.*`). Read after Resolver.swift.

import PanelindCore

extension Resolver {
    mutating func resolveStop(mode: ServeMode) -> StopSettings {
        var stop = StopSettings()
        let reserve = StopSettings.reserve
        stop.steps = value(Table.signal)
        stop.target = value(Table.target)
        stop.budget = value(Table.budget)
        stop.delay = value(Table.stopDelay)

        let setDrain = written(Table.drain)
        let setGrace = written(Table.grace)
        let rest = stop.budget - stop.delay - reserve
        if let setDrain {
            stop.drain = setDrain
        } else {
            var drain = Duration.zero
            var note = "the worker drains itself in \(mode.rawValue) mode"
            if mode == .front {
                drain = (stop.budget - stop.delay) * 2 / 3
                note = "two thirds of budget - delay"
                if let setGrace, rest - setGrace < drain {
                    drain = rest - setGrace
                    note = "what stop.grace leaves"
                }
                // Of a very small budget two thirds and the reserve would leave no grace at all.
                let room = max(.zero, rest)
                if setGrace == nil { drain = min(drain, room - min(.milliseconds(100), room / 2)) }
                drain = wholeMilliseconds(max(.zero, drain))
            }
            stop.drain = record(Table.drain, drain, .default, note: note)
        }
        let needed = stop.delay + stop.drain + (setGrace ?? .zero) + reserve
        if needed > stop.budget || (setGrace == nil && needed == stop.budget) {
            refuse(stop, setGrace, reserve)
        }
        stop.graceIsSet = setGrace != nil
        // In direct and socket mode nothing in panelind could drain: the time goes to the grace.
        if mode != .front { stop.drain = .zero }
        stop.grace = setGrace ?? wholeMilliseconds(max(.zero, rest - stop.drain))
        if setGrace == nil, !isGiven(Table.grace) {
            record(Table.grace, stop.grace, .default, note: "what the budget leaves")
        }
        checkSteps(stop)
        return stop
    }

    /// Names the set value that is the easiest to change.
    private mutating func refuse(_ stop: StopSettings, _ grace: Duration?, _ reserve: Duration) {
        var parts = "delay \(stop.delay.text) + drain \(stop.drain.text)"
        if let grace { parts += " + grace \(grace.text)" }
        parts += " + \(reserve.text)"
        let verb = grace == nil ? "leave no grace within" : "exceed"
        let why = "\(parts) \(verb) the budget of \(stop.budget.text)"
        if isGiven(Table.drain) {
            report(Table.drain, "\(why); lower it, or raise stop.budget")
        } else if isGiven(Table.grace) {
            report(Table.grace, "\(why); lower it, or raise stop.budget")
        } else if isGiven(Table.stopDelay) {
            report(Table.stopDelay, "\(why); lower it, or raise stop.budget")
        } else {
            report(Table.budget, "\(why); write more than \((stop.delay + reserve).text)")
        }
    }

    private mutating func checkSteps(_ stop: StopSettings) {
        let waits = stop.steps.compactMap(\.wait).reduce(Duration.zero, +)
        guard waits > .zero, waits >= stop.grace else { return }
        report(
            Table.signal,
            "the waits before the last signal, \(waits.text), leave it nothing of stop.grace \(stop.grace.text); "
                + "write shorter ones")
    }

    private func wholeMilliseconds(_ duration: Duration) -> Duration {
        .milliseconds(duration.nanoseconds / 1_000_000)
    }
}
