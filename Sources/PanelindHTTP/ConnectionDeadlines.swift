//  ConnectionDeadlines.swift
//  When a connection has had its time: one FIFO per class of waiting, one loop timer for the earliest of all.
//  Activity writes a timestamp; expiry re-checks it. No connection, no timer (DESIGN section 2). Read HTTPLimits first.

import NIOCore

/// Told when a connection's time is over.
public protocol DeadlineOwner: AnyObject {
    /// The limit of this class has passed since the entry's last timestamp.
    func deadlinePassed(_ wait: ConnectionDeadlines.Wait)
    /// The listener ends: close now.
    func closeNow()
}

/// The deadlines of all connections of a listener, and so their register.
public final class ConnectionDeadlines {
    /// What a connection is waiting for.
    public enum Wait: Int, CaseIterable, Sendable {
        /// The next request, or the first.
        case idle
        /// The rest of a head.
        case head
        /// The rest of a body.
        case body
        /// Our own answer: not the client's fault.
        case answer
        /// The client to take its answer.
        case write
        /// The client to go after a refusal.
        case linger
    }

    /// One connection's place in the register.
    public final class Entry {
        /// Since when the present wait lasts; activity may move it without telling the register.
        public var since: NIODeadline
        public fileprivate(set) var wait: Wait
        fileprivate unowned let owner: any DeadlineOwner
        fileprivate var checkAt: NIODeadline
        fileprivate var next: Entry?
        /// Its `next` holds us. Not weak: an object that was ever weakly referenced counts slowly for ever.
        fileprivate unowned var previous: Entry?

        fileprivate init(owner: any DeadlineOwner, wait: Wait, now: NIODeadline) {
            self.owner = owner
            self.wait = wait
            since = now
            checkAt = now
        }
    }

    private struct List {
        var limit: TimeAmount?
        var first: Entry?
        var last: Entry?
    }

    private let loop: any EventLoop
    private var lists: [List]
    private var timer: Scheduled<Void>?
    private var armedFor: NIODeadline = .distantFuture
    /// Open connections.
    public private(set) var count = 0

    /// Makes an empty register; where `limit` is nil for a class, that wait never ends by itself.
    public init(loop: any EventLoop, limit: (Wait) -> TimeAmount?) {
        self.loop = loop
        lists = Wait.allCases.map { List(limit: limit($0)) }
    }

    /// Changes the limit of a class, for waits that begin from now on; nil: they do not end by themselves.
    public func setLimit(_ wait: Wait, _ limit: TimeAmount?) { lists[wait.rawValue].limit = limit }

    /// Enters a connection that starts to wait now.
    public func add(_ owner: any DeadlineOwner, wait: Wait) -> Entry {
        let entry = Entry(owner: owner, wait: wait, now: loop.now)
        count += 1
        insert(entry)
        return entry
    }

    /// Takes a connection out; the last one takes the timer with it.
    public func remove(_ entry: Entry) {
        unlink(entry)
        count -= 1
        if count == 0 { disarm() }
    }

    /// Moves a connection to another wait, which begins now.
    public func move(_ entry: Entry, to wait: Wait) {
        entry.since = loop.now
        if entry.wait == wait { return }
        unlink(entry)
        entry.wait = wait
        insert(entry)
    }

    /// The connection that has been in this wait longest, or nil.
    public func longest(_ wait: Wait) -> Entry? {
        while let entry = lists[wait.rawValue].first {
            let due = due(entry)
            if entry.checkAt >= due { return entry }
            // Active since it was entered: put it where it belongs and look again.
            unlink(entry)
            insert(entry)
        }
        return nil
    }

    /// Ends the connection that has been in this wait longest; false where none has been so long.
    public func expireLongest(_ wait: Wait, atLeast age: TimeAmount) -> Bool {
        guard let entry = longest(wait), loop.now - entry.since >= age else { return false }
        entry.owner.deadlinePassed(wait)
        return true
    }

    /// Ends every connection that is in this wait now.
    public func expireAll(_ wait: Wait) {
        var owners: [any DeadlineOwner] = []
        var entry = lists[wait.rawValue].first
        while let one = entry {
            owners.append(one.owner)
            entry = one.next
        }
        // Apart: they leave the register while it runs.
        for owner in owners { owner.deadlinePassed(wait) }
    }

    /// Calls for every owner, in no particular order; owners may leave while it runs.
    public func forEach(_ body: (any DeadlineOwner) -> Void) {
        var owners: [any DeadlineOwner] = []
        owners.reserveCapacity(count)
        for list in lists {
            var entry = list.first
            while let one = entry {
                owners.append(one.owner)
                entry = one.next
            }
        }
        for owner in owners { body(owner) }
    }

    private func due(_ entry: Entry) -> NIODeadline {
        guard let limit = lists[entry.wait.rawValue].limit else { return entry.since }
        return entry.since + limit
    }

    /// Sorted by due time; nearly always the tail, since limits are constant within a class.
    private func insert(_ entry: Entry) {
        let index = entry.wait.rawValue
        entry.checkAt = due(entry)
        var before = lists[index].last
        while let one = before, one.checkAt > entry.checkAt { before = one.previous }
        entry.previous = before
        if let before {
            entry.next = before.next
            before.next = entry
        } else {
            entry.next = lists[index].first
            lists[index].first = entry
        }
        if let after = entry.next { after.previous = entry } else { lists[index].last = entry }
        if lists[index].limit != nil && entry.checkAt < armedFor { arm(entry.checkAt) }
    }

    private func unlink(_ entry: Entry) {
        let index = entry.wait.rawValue
        let next = entry.next
        let previous = entry.previous
        if let previous { previous.next = next } else { lists[index].first = next }
        if let next { next.previous = previous } else { lists[index].last = previous }
        entry.next = nil
        entry.previous = nil
    }

    private func arm(_ deadline: NIODeadline) {
        timer?.cancel()
        armedFor = deadline
        timer = loop.assumeIsolatedUnsafeUnchecked().scheduleTask(deadline: deadline) { [weak self] in
            self?.fired()
        }
    }

    private func disarm() {
        timer?.cancel()
        timer = nil
        armedFor = .distantFuture
    }

    private func fired() {
        timer = nil
        armedFor = .distantFuture
        let now = loop.now
        for wait in Wait.allCases where lists[wait.rawValue].limit != nil {
            while let entry = lists[wait.rawValue].first, entry.checkAt <= now {
                unlink(entry)
                // Back in before the owner hears of it: it may leave, or move to another wait, in the call.
                let isOver = due(entry) <= now
                if isOver { entry.since = now }
                insert(entry)
                if isOver { entry.owner.deadlinePassed(wait) }
            }
        }
        guard count > 0 else { return disarm() }
        var earliest = NIODeadline.distantFuture
        for list in lists where list.limit != nil {
            if let entry = list.first { earliest = min(earliest, entry.checkAt) }
        }
        if earliest < armedFor { arm(earliest) }
    }
}
