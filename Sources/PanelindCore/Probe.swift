//  Probe.swift
//  When one probe is asked, and what its answers amount to.
//  One attempt at a time; its timeout is a deadline of the machine, so nobody else keeps a timer.

/// The schedule and the verdict of one probe of one worker.
public struct Probe: Hashable, Sendable {
    /// Where its next step comes from.
    enum Phase: Hashable, Sendable {
        /// Not to be asked yet, or never: the worker tells by itself.
        case idle
        case waiting(until: Instant)
        case asking(since: Instant, until: Instant)
    }

    /// How often to ask, which depends on what the worker is doing.
    enum Pace: Hashable, Sendable {
        case beforeReady, failing, steady
    }

    let kind: ProbeKind
    @Shared private(set) var settings: ProbeSettings
    private(set) var phase = Phase.idle
    /// The ordinal of the newest attempt: an answer to an older one is late.
    private(set) var attempt = 0
    private(set) var successesInARow = 0
    private(set) var failuresInARow = 0
    /// Why the newest failed attempt failed.
    private(set) var lastReason: String?

    init(_ kind: ProbeKind, _ settings: ProbeSettings) {
        self.kind = kind
        _settings = Shared(wrappedValue: settings)
    }

    var deadline: Instant? {
        switch phase {
        case .idle: nil
        case .waiting(let until): until
        case .asking(_, let until): until
        }
    }

    /// Enough successes in a row.
    var isGood: Bool { successesInARow >= settings.successes }
    /// Enough failures in a row.
    var isBad: Bool { failuresInARow >= settings.failures }

    /// Begins to ask, `settings.delay` from now. A probe that the worker answers by itself stays idle.
    mutating func begin(at now: Instant) {
        guard case .idle = phase, settings.method.isAsked else { return }
        phase = .waiting(until: now + settings.delay)
    }

    /// Asks no earlier than this.
    mutating func delay(to instant: Instant) {
        guard case .waiting(let until) = phase, until < instant else { return }
        phase = .waiting(until: instant)
    }

    /// Its answer made the worker ready: the next attempt is a whole period away.
    mutating func relax(at now: Instant) {
        guard case .waiting = phase else { return }
        phase = .waiting(until: now + settings.period)
    }

    /// Never asks again.
    mutating func end() -> Int? {
        defer { phase = .idle }
        guard case .asking = phase else { return nil }
        return attempt
    }

    /// The number of the attempt to make now, if one is due.
    mutating func attemptDue(at now: Instant) -> Int? {
        guard case .waiting(let until) = phase, until <= now else { return nil }
        attempt += 1
        phase = .asking(since: now, until: now + settings.timeout)
        return attempt
    }

    /// The number of the attempt whose time is over, if there is one.
    func attemptOverdue(at now: Instant) -> Int? {
        guard case .asking(_, let until) = phase, until <= now else { return nil }
        return attempt
    }

    /// Takes an answer. Returns false for a late one, which changes nothing.
    mutating func take(_ outcome: ProbeOutcome, attempt: Int, pace: Pace, at now: Instant) -> Bool {
        guard case .asking(let since, _) = phase, attempt == self.attempt else { return false }
        switch outcome {
        case .passed:
            successesInARow += 1
            failuresInARow = 0
        case .failed(let reason):
            failuresInARow += 1
            successesInARow = 0
            lastReason = reason
        }
        phase = .waiting(until: max(now, since + interval(pace)))
        return true
    }

    /// The current attempt says nothing (a clock gap, another generation on the same socket): ask again.
    mutating func voidAttempt(pace: Pace, at now: Instant) {
        guard case .asking(let since, _) = phase else { return }
        phase = .waiting(until: max(now, since + interval(pace)))
    }

    private func interval(_ pace: Pace) -> Duration {
        // A listener is often away for a moment only, and requests wait for it: 10, 20, 40 ms and so on.
        if kind == .connection { return min(settings.period, .milliseconds(5) * (1 << min(failuresInARow, 8))) }
        switch pace {
        case .beforeReady:
            if case .exec = settings.method { return .seconds(1) }
            return .milliseconds(100)
        case .failing: return min(.seconds(1), settings.period)
        case .steady: return failuresInARow > 0 ? min(.seconds(1), settings.period) : settings.period
        }
    }
}
