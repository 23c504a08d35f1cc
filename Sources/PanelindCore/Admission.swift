//  Admission.swift
//  Which request goes to which worker, which waits, and which is refused: the front's own pure value.
//  The supervisor sees none of this; it sends a route and hears two edges from here. Read AdmissionAction.swift first.

/// The hold queue, the requests in flight, and the drain.
public struct Admission: Sendable {
    /// How many held requests one step lets go; the rest follow in the next, so that other events come between.
    static let releaseBatch = 64
    /// A worker that lost a request and is still routed to after so long is alive: it gets the request once more.
    static let deathNotice: Duration = .milliseconds(250)

    /// A worker that left a request untouched may be dying, and its listener outlives its connections by a moment: what
    /// went there now would be lost with it, so nothing does for so long.
    static let suspicion: Duration = .milliseconds(5)

    private struct Request: Hashable, Sendable {
        let bytes: Int
        /// Safe and without a body: it may be made twice (RFC 9110 section 9.2.2). Once retried, never again.
        var canRetry: Bool
        /// Since when it waits. The time that a worker had it is none of the hold's.
        var heldSince: Instant
        var forwardedAt: Instant
        /// The worker that has it, or that lost it.
        var worker: Generation?
        var isHeld = false
        /// A worker has lost it that may have read it.
        var wasSent = false
        var isTouched = false
        var isAnswered = false
        var kind = TrafficKind.plain
    }

    /// What is asked of a lost request at every step, beside its place in the queue.
    private struct Retry: Hashable, Sendable {
        let id: RequestID
        /// The worker that lost it, until that turns out to be alive.
        var loser: Generation?
        let lostAt: Instant
        let heldSince: Instant
    }

    private struct Load: Hashable, Sendable {
        let worker: Generation
        var plain = 0
        var lasting = 0
        /// `reportDrain` came, and these edges are still to be told.
        var owesDrained = false
        var owesOnlyStreams = false
    }

    public private(set) var settings: AdmissionSettings
    public private(set) var route = Route.hold
    private var requests: [RequestID: Request] = [:]
    /// First come, first served.
    private var queue: [RequestID] = []
    /// Requests whose worker died, which are older than all in `queue`.
    private var retries: [Retry] = []
    private var heldBytes = 0
    /// What each worker has. They are two or three, so that a search costs less than a table.
    private var loads: [Load] = []
    private var newest: UInt64 = 0
    /// More could be let go at once: the next step is due.
    private var releaseAt: Instant?
    private var suspect: Generation?
    private var suspectUntil = Instant.zero

    /// Makes an empty front that holds everything.
    public init(_ settings: AdmissionSettings) { self.settings = settings }

    /// Requests that wait for a worker.
    public var held: Int { queue.count + retries.count }
    /// Requests, streams and tunnels that workers have.
    public var inFlight: Int { requests.count - held }
    /// The same for one worker.
    public func inFlight(of generation: Generation) -> Int {
        for load in loads where load.worker == generation { return load.plain + load.lasting }
        return 0
    }
    /// Every answer from now on carries `Connection: close`.
    public var isLastCall: Bool {
        switch route {
        case .lastCall, .refuse(.draining, _), .refuse(.stopping, _): true
        case .forward, .hold, .refuse: false
        }
    }

    /// When `time` is due, or nil if nothing waits.
    public var deadline: Instant? {
        guard held > 0 else { return nil }
        // Those in `queue` came in order; the retries wait differently long, and are few.
        let cleared = suspect != nil && suspect == routed ? suspectUntil : nil
        var first = earliest(releaseAt, cleared, queue.first.flatMap(giveUpAt))
        for retry in retries { first = min(first ?? giveUpAt(retry), giveUpAt(retry)) }
        return first
    }

    // MARK: Requests

    /// A whole head came: it goes to the worker, waits, or is refused.
    /// - Parameters:
    ///   - bytes: what it keeps in memory while it waits.
    ///   - canRetry: GET, HEAD or OPTIONS without a body.
    public mutating func arrive(
        bytes: Int, canRetry: Bool, at now: Instant
    ) -> (id: RequestID, actions: [AdmissionAction]) {
        newest += 1
        let id = RequestID(number: newest)
        var out: [AdmissionAction] = []
        // Those that wait go first, also where there is room again.
        release(at: now, &out)
        requests[id] = Request(bytes: bytes, canRetry: canRetry, heldSince: now, forwardedAt: now)
        if queue.isEmpty, let worker = freeWorker(not: nil), !retries.contains(where: { $0.loser != worker }) {
            forward(id, to: worker, at: now, &out)
        } else {
            hold(id, asRetry: false, at: now, &out)
        }
        return (id, out)
    }

    /// The worker's answer has come so far.
    public mutating func answered(_ id: RequestID, _ part: AnswerPart, at now: Instant) -> [AdmissionAction] {
        guard var request = requests[id], !request.isHeld, let worker = request.worker else { return [] }
        request.isTouched = true
        var out: [AdmissionAction] = []
        if case .head(let kind) = part {
            count(request, worker, -1)
            request.isAnswered = true
            request.kind = kind
            count(request, worker, 1)
        }
        requests[id] = request
        tellEdges(of: worker, &out)
        return out
    }

    /// The worker left it without a whole answer. A connection that was kept open and turned out to be closed is not
    /// that: the front asks again on a fresh one.
    ///
    /// - Parameter unsent: no byte of it can have reached the worker: it did not accept the connection. Any request
    ///   may then be made as if for the first time.
    public mutating func lost(_ id: RequestID, unsent: Bool = false, at now: Instant) -> [AdmissionAction] {
        guard var request = requests[id], !request.isHeld, let worker = request.worker else { return [] }
        var out: [AdmissionAction] = []
        if !request.isTouched {
            suspect = worker
            suspectUntil = now + Self.suspicion
        }
        if request.canRetry || unsent, !request.isTouched {
            count(request, worker, -1)
            if unsent {
                request.heldSince = request.heldSince + (now - request.forwardedAt)
            } else {
                request.canRetry = false
                request.wasSent = true
                request.heldSince = now
            }
            requests[id] = request
            if let next = freeWorker(not: worker) {
                forward(id, to: next, at: now, &out)
            } else {
                hold(id, asRetry: true, at: now, &out)
            }
        } else {
            end(id, request.isAnswered ? .abort(id) : .fail(id), &out)
        }
        tellEdges(of: worker, &out)
        release(at: now, &out)
        return out
    }

    /// It is over: answered in full, or its client has gone.
    public mutating func ended(_ id: RequestID, at now: Instant) -> [AdmissionAction] {
        guard let request = requests[id] else { return [] }
        forget(id)
        var out: [AdmissionAction] = []
        if let worker = request.worker { tellEdges(of: worker, &out) }
        release(at: now, &out)
        return out
    }

    // MARK: The supervisor and the clock

    /// Requests go there from now on.
    public mutating func take(_ route: Route, at now: Instant) -> [AdmissionAction] {
        self.route = route
        var out: [AdmissionAction] = []
        if case .refuse(let reason, let retryAfter) = route {
            for id in retries.map(\.id) + queue {
                end(id, .refuse(id, .notReady(reason), retryAfter: retryAfter), &out)
            }
        }
        if case .lastCall(let last) = route {
            for retry in retries where retry.loser == last { end(retry.id, lastLoss(retry.id), &out) }
        }
        release(at: now, &out)
        return out
    }

    /// A reload changed the settings. Nobody who waits already is sent away for it.
    public mutating func use(_ settings: AdmissionSettings, at now: Instant) -> [AdmissionAction] {
        self.settings = settings
        return time(at: now)
    }

    /// Tells `onlyStreamsLeft` and `drained` of this worker, each once, as soon as it is true.
    public mutating func reportDrain(_ generation: Generation) -> [AdmissionAction] {
        let i = place(of: generation)
        loads[i].owesDrained = true
        loads[i].owesOnlyStreams = true
        var out: [AdmissionAction] = []
        tellEdges(of: generation, &out)
        return out
    }

    /// Ends what this worker still has.
    public mutating func cut(_ generation: Generation, at now: Instant) -> [AdmissionAction] {
        var out: [AdmissionAction] = []
        for (id, request) in requests.sorted(by: { $0.key < $1.key })
        where request.worker == generation && !request.isHeld {
            end(id, request.isAnswered ? .abort(id) : .timeOut(id), &out)
        }
        tellEdges(of: generation, &out)
        return out
    }

    /// The deadline fired.
    public mutating func time(at now: Instant) -> [AdmissionAction] {
        var out: [AdmissionAction] = []
        // First whoever can still be served: a late timer is no reason to refuse.
        release(at: now, &out)
        for retry in retries where giveUpAt(retry) <= now {
            // Whom the batch alone kept back goes with the next.
            guard freeWorker(not: retry.loser) == nil else { continue }
            if routed != nil, retry.loser == routed, retry.heldSince + settings.hold > now {
                // Alive after all: one of several processes of the worker died, or it closes connections.
                for i in retries.indices where retries[i].id == retry.id { retries[i].loser = nil }
                requests[retry.id]?.worker = nil
            } else {
                end(retry.id, .refuse(retry.id, .holdOver, retryAfter: .seconds(1)), &out)
            }
        }
        if freeWorker(not: nil) == nil {
            // In their order: behind one that may wait on, all may.
            while let id = queue.first, let until = giveUpAt(id), until <= now {
                end(id, .refuse(id, .holdOver, retryAfter: .seconds(1)), &out)
            }
        }
        release(at: now, &out)
        return out
    }

    /// The worker that requests go to.
    private var routed: Generation? {
        switch route {
        case .forward(let generation), .lastCall(let generation): generation
        case .hold, .refuse: nil
        }
    }

    /// The worker that can take a request now which this one, if any, has lost.
    private func freeWorker(not loser: Generation?) -> Generation? {
        guard let routed, suspect != routed, loser != routed else { return nil }
        return inFlight(of: routed) < settings.concurrency ? routed : nil
    }

    /// When it has waited long enough.
    private func giveUpAt(_ id: RequestID) -> Instant? {
        requests[id].map { $0.heldSince + settings.hold }
    }

    /// The same, and before that the moment when a loser that is still routed to has proven to be alive.
    private func giveUpAt(_ retry: Retry) -> Instant {
        let end = retry.heldSince + settings.hold
        guard retry.loser != nil, retry.loser == routed else { return end }
        return min(retry.lostAt + Self.deathNotice, end)
    }

    /// Lets go who can, in order, a batch at a time.
    private mutating func release(at now: Instant, _ out: inout [AdmissionAction]) {
        releaseAt = nil
        if suspect != nil, suspectUntil <= now { suspect = nil }
        guard held > 0, freeWorker(not: nil) != nil else { return }
        var left = Self.releaseBatch
        for retry in retries where left > 0 {
            guard let worker = freeWorker(not: retry.loser) else { continue }
            retries.removeAll { $0.id == retry.id }
            forward(retry.id, to: worker, at: now, &out)
            left -= 1
        }
        var gone = 0
        while left > 0, gone < queue.count, let worker = freeWorker(not: nil) {
            forward(queue[gone], to: worker, at: now, &out)
            gone += 1
            left -= 1
        }
        queue.removeFirst(gone)
        guard left == 0 else { return }
        let more =
            retries.contains { freeWorker(not: $0.loser) != nil } || (!queue.isEmpty && freeWorker(not: nil) != nil)
        if more { releaseAt = now }
    }

    private mutating func forward(
        _ id: RequestID, to worker: Generation, at now: Instant, _ out: inout [AdmissionAction]
    ) {
        guard var request = requests[id] else { return }
        if request.isHeld { heldBytes -= request.bytes }
        request.isHeld = false
        request.worker = worker
        request.forwardedAt = now
        requests[id] = request
        count(request, worker, 1)
        out.append(.forward(id, worker))
    }

    /// Makes it wait, where somebody can come for it and there is room.
    private mutating func hold(_ id: RequestID, asRetry: Bool, at now: Instant, _ out: inout [AdmissionAction]) {
        guard let request = requests[id] else { return }
        requests[id]?.isHeld = true
        heldBytes += request.bytes
        if asRetry {
            retries.append(Retry(id: id, loser: request.worker, lostAt: now, heldSince: request.heldSince))
        } else {
            queue.append(id)
        }
        if case .refuse(let reason, let retryAfter) = route {
            end(id, .refuse(id, .notReady(reason), retryAfter: retryAfter), &out)
        } else if case .lastCall(let last) = route, request.worker == last {
            end(id, lastLoss(id), &out)
        } else if held > settings.heldRequests || heldBytes > settings.heldBytes {
            end(id, .refuse(id, .queueFull, retryAfter: .seconds(1)), &out)
        }
    }

    /// Its worker was the last to come.
    private func lastLoss(_ id: RequestID) -> AdmissionAction {
        requests[id]?.wasSent == true ? .fail(id) : .refuse(id, .notReady(.draining), retryAfter: .seconds(1))
    }

    private mutating func end(_ id: RequestID, _ action: AdmissionAction, _ out: inout [AdmissionAction]) {
        forget(id)
        out.append(action)
    }

    private mutating func forget(_ id: RequestID) {
        guard let request = requests.removeValue(forKey: id) else { return }
        if request.isHeld {
            heldBytes -= request.bytes
            if let place = queue.firstIndex(of: id) { queue.remove(at: place) }
            retries.removeAll { $0.id == id }
        } else if let worker = request.worker {
            count(request, worker, -1)
        }
    }

    private mutating func count(_ request: Request, _ worker: Generation, _ change: Int) {
        let i = place(of: worker)
        switch request.kind {
        case .plain: loads[i].plain += change
        case .stream, .tunnel: loads[i].lasting += change
        }
    }

    /// Where the load of this worker is.
    private mutating func place(of worker: Generation) -> Int {
        if let i = loads.firstIndex(where: { $0.worker == worker }) { return i }
        loads.append(Load(worker: worker))
        return loads.count - 1
    }

    /// Tells what has become true of a worker that drains, and drops the counts of one that has nothing.
    private mutating func tellEdges(of worker: Generation, _ out: inout [AdmissionAction]) {
        guard let i = loads.firstIndex(where: { $0.worker == worker }), loads[i].plain == 0 else { return }
        let load = loads[i]
        if load.lasting == 0 {
            loads.remove(at: i)
            if load.owesDrained { out.append(.tell(.drained(worker))) }
        } else if load.owesOnlyStreams {
            loads[i].owesOnlyStreams = false
            out.append(.tell(.onlyStreamsLeft(worker)))
        }
    }
}
