//  Round.swift
//  One round: a few clients and one worker, all of the seed's making, around a real front; then everything is quiet.
//  Read Client.swift and Worker.swift first.

import Glibc
import PanelindCore
import PanelindFront

/// Clients and a worker around a front, in one thread.
final class Round {
    /// What a round may last.
    private static let limit: UInt64 = 20_000

    let seed: UInt64
    var dice: Dice
    /// What good clients and good workers may expect is expected.
    let isStrict: Bool
    private(set) var plans: [Int: Plan] = [:]
    private(set) var complaint: String?
    private let host: FrontHost
    private let listener: PrivateListener
    private let generation: Generation
    private var nextTag: Int
    private var clients: [ClientConnection] = []
    private var workers: [WorkerConnection] = []
    private var chaosAt: UInt64?
    private let isTraced: Bool
    private let startedAt = milliseconds()

    init(seed: UInt64, host: FrontHost, listener: PrivateListener, generation: Generation, isTraced: Bool) {
        self.isTraced = isTraced
        self.seed = seed
        self.host = host
        self.listener = listener
        self.generation = generation
        dice = Dice(seed: seed)
        nextTag = dice.roll(90_000)
        isStrict = !dice.once(in: 6)
    }

    /// The first complaint counts: the rest may follow from it.
    func complain(_ what: String, _ tag: Int) {
        guard complaint == nil else { return }
        let plan = plans[tag].map { " (\($0.method) \($0.conduct) \($0.tunnel.map { "\($0)" } ?? ""))" } ?? ""
        complaint = "request \(tag)\(plan): \(what)"
    }

    /// For whoever follows one round: who, what, and up to sixty bytes of it.
    func note(_ who: String, _ peer: Peer, _ what: String, _ bytes: ArraySlice<UInt8> = []) {
        guard isTraced else { return }
        let time = Self.milliseconds() - startedAt
        let text = bytes.isEmpty ? "" : " \(bytes.count) \(shown(Array(bytes.prefix(60))))"
        print("\(time) ms \(who) \(peer.descriptor): \(what)\(text)")
    }

    func makePlan(isHostile: Bool) -> Plan {
        nextTag += 1
        let plan = Plan(tag: nextTag, dice: &dice, isHostile: isHostile)
        plans[nextTag] = plan
        return plan
    }

    /// A tag that must never reach the worker.
    func forbiddenTag() -> Int {
        nextTag += 1
        return nextTag
    }

    private static func milliseconds() -> UInt64 { UInt64(FrontHost.now().nanoseconds / 1_000_000) }

    /// Plays it; the complaint, or nil.
    func play() throws -> String? {
        let generation = generation
        let path = listener.path
        try host.on { front in
            front.open(generation, at: .unix(path))
            front.perform(.route(.forward(generation)))
        }
        let isHostile = dice.once(in: 2) || !isStrict
        for _ in 0...dice.roll(8) {
            clients.append(ClientConnection(try host.connect(), self, isHostile: isHostile))
        }
        let start = Self.milliseconds()
        if !isStrict { chaosAt = start + UInt64(dice.roll(20)) }
        while clients.contains(where: { !$0.isDone }), complaint == nil {
            let now = Self.milliseconds()
            if now - start > Self.limit {
                complain("\(clients.count(where: { !$0.isDone })) clients wait for ever", -1)
                break
            }
            if let chaosAt, now >= chaosAt { try makeChaos(now) }
            turn(now)
        }
        for client in clients { client.peer.close() }
        try settle()
        return complaint
    }

    private func turn(_ now: UInt64) {
        var polls = [pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)]
        let peers = clients.map(\.peer) + workers.map(\.peer)
        polls += peers.map { peer in
            // A connection that ended reports so again and again.
            let events = peer.events(now: now)
            let isQuiet = peer.isClosed || peer.inputEnded && events == 0
            return pollfd(fd: isQuiet ? -1 : peer.descriptor, events: events, revents: 0)
        }
        let waits = peers.contains { !$0.isClosed && !$0.isSent && now < $0.notBefore }
        poll(&polls, nfds_t(polls.count), waits ? 1 : 10)
        let count = clients.count
        let ready = Int16(POLLIN) | Int16(POLLHUP) | Int16(POLLERR)
        // From behind: a new one does not move those that are still to be looked at.
        for (place, poll) in polls.dropFirst().enumerated() {
            if poll.revents & Int16(POLLOUT) != 0 {
                peers[place].sendOn(now: now) { note(place < count ? "client" : "worker", peers[place], $0, $1) }
            }
            if poll.revents & ready != 0, !peers[place].isClosed, !peers[place].inputEnded {
                if place < count { clients[place].read() } else { workers[place - count].read() }
            }
            if place < count { clients[place].look() }
        }
        workers.removeAll { $0.peer.isClosed }
        while let peer = listener.accept() { workers.append(WorkerConnection(peer, self)) }
    }

    /// What the machine may say at any time.
    private func makeChaos(_ now: UInt64) throws {
        let generation = generation
        let choice = dice.roll(8)
        chaosAt = now + UInt64(dice.roll(60))
        let path = listener.path
        try host.on { front in
            switch choice {
            case 0: front.perform(.route(.hold))
            case 1: front.perform(.dropIdle)
            case 2: front.perform(.cut(generation))
            case 3: front.perform(.route(.lastCall(generation)))
            case 4: front.perform(.route(.refuse(.draining, retryAfter: .seconds(1))))
            case 5:
                front.forget(generation)
                front.open(generation, at: .unix(path))
            default: front.perform(.route(.forward(generation)))
            }
        }
    }

    /// Everybody has gone: the front must keep nothing.
    private func settle() throws {
        let generation = generation
        let start = Self.milliseconds()
        try host.on { front in
            front.perform(.route(.forward(generation)))
            front.perform(.dropIdle)
        }
        while true {
            let now = Self.milliseconds()
            turn(now)
            let (kept, accepted) = try host.on { front in
                front.perform(.dropIdle)
                return (front.kept, front.server?.accepted ?? 0)
            }
            // One that is not accepted yet would come into the next round.
            if kept == FrontKept(), accepted == host.connections { break }
            // A client's FIN is no cancel: behind one that has gone a silent worker is waited for, ten seconds.
            if now - start > 15_000 {
                complain("everybody has gone, but the front keeps \(kept)", -1)
                break
            }
        }
        // What the front has made and ended since the last turn waits here still: it would come into the next round.
        while let peer = listener.accept() { workers.append(WorkerConnection(peer, self)) }
        for worker in workers { worker.peer.close() }
        workers = []
        try host.on { $0.forget(generation) }
    }
}
