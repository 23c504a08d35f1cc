//  Client.swift
//  One client of a simulated front: what it asks for, how its worker answers, how patient it is.
//  Drawn by a generator of its own, so that the clients of a seed do not depend on its faults. Read before Front.swift.

import PanelindCore

/// One request and the answer that it would get.
public struct Client: Sendable {
    /// What a worker does with it besides answering.
    public enum Trouble: Sendable {
        case none
        /// The worker takes it, and closes the connection.
        case dropped
        /// The worker dies of it.
        case deadly
    }

    /// GET, HEAD or OPTIONS without a body.
    public var canRetry = true
    /// Of its head.
    public var bytes = 400
    /// What its answer turns out to be.
    public var kind = TrafficKind.plain
    /// From the worker's taking it to the head of the answer.
    public var headAfter: Duration = .milliseconds(5)
    /// An interim answer comes half way.
    public var hasInterim = false
    /// From the head to the end.
    public var lasts: Duration = .zero
    /// It goes away after so long, whatever it was told; nil: it waits for its outcome.
    public var leavesAfter: Duration?
    public var trouble = Trouble.none

    /// Makes a quick GET.
    public init() {}

    /// Draws a client; a calm one has no trouble.
    static func draw(_ random: inout RandomNumbers, isCalm: Bool) -> Client {
        var it = Client()
        switch random.below(100) {
        case 0..<55: break
        case 55..<85: it.canRetry = false
        case 85..<94: it.kind = .stream
        default: it.kind = .tunnel
        }
        it.bytes = random.pick(300, 2000, 60_000)
        it.headAfter = random.duration(random.pick(0...5, 1...50, 50...8000))
        it.hasInterim = random.chance(50)
        if it.kind != .plain {
            it.lasts = random.duration(random.pick(1000...20_000, 20_000...60_000, 600_000...600_000))
        } else if random.chance(350) {
            it.lasts = random.duration(1...4000)
        }
        if random.chance(150) { it.leavesAfter = random.duration(random.pick(0...300, 0...12_000)) }
        guard !isCalm else { return it }
        switch random.below(250) {
        case 0...2: it.trouble = .dropped
        case 3: it.trouble = .deadly
        default: break
        }
        return it
    }
}

extension AdmissionSettings {
    /// Draws bounds small enough to be met.
    static func draw(_ random: inout RandomNumbers, hold: Duration) -> AdmissionSettings {
        var it = AdmissionSettings()
        it.hold = hold
        it.heldRequests = random.pick(128, 2, 10, 300)
        it.heldBytes = random.pick(8 << 20, 8 << 20, 100_000)
        it.concurrency = random.pick(1000, 1, 4, 30)
        return it
    }
}
