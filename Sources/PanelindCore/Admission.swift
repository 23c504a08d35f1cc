//  Admission.swift
//  Which request goes to which worker, which waits, and which is refused: the front's own pure value.
//  The supervisor sees none of this; it sends a route and hears two edges. Read AdmissionAction.swift first.

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
        /// Since when it waits.
        var heldSince: Instant
        /// The worker that has it, or that lost it.
        var worker: Generation?
        /// Since when its worker may be dead.
        var lostAt: Instant?
        var isHeld = false
        var isTouched = false
        var isAnswered = false
        var kind = TrafficKind.plain
    }

    private struct Load: Hashable, Sendable {
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
    private var retries: [RequestID] = []
    private var heldBytes = 0
    private var loads: [Generation: Load] = [:]
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
    public func inFlight(of generation: Generation) -> Int { loads[generation].map { $0.plain + $0.lasting } ?? 0 }
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
        var first = [releaseAt, cleared, queue.first.flatMap(giveUpAt)].earliest
        for id in retries { first = [first, giveUpAt(id)].earliest }
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
        requests[id] = Request(bytes: bytes, canRetry: canRetry, heldSince: now)
        if queue.isEmpty, let worker = freeWorker(for: id) {
            forward(id, to: worker, &out)
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
            if !unsent {
                request.canRetry = false
                request.heldSince = now
            }
            request.lostAt = now
            requests[id] = request
            if let next = freeWorker(for: id) {
                forward(id, to: next, &out)
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
            for id in retries + queue { end(id, .refuse(id, .notReady(reason), retryAfter: retryAfter), &out) }
        }
        if case .lastCall(let last) = route {
            for id in retries where requests[id]?.worker == last { end(id, .fail(id), &out) }
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
        loads[generation, default: Load()].owesDrained = true
        loads[generation, default: Load()].owesOnlyStreams = true
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
        for id in retries + queue {
            // Whom the batch alone kept back goes with the next.
            guard let until = giveUpAt(id), until <= now, freeWorker(for: id) == nil, let request = requests[id] else {
                continue
            }
            if routed != nil, request.worker == routed, request.heldSince + settings.hold > now {
                // Alive after all: one of several processes of the worker died, or it closes connections.
                requests[id]?.worker = nil
            } else {
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

    /// The worker that can take this request now. One that lost it never gets it again.
    private func freeWorker(for id: RequestID) -> Generation? {
        guard let routed, suspect != routed, requests[id]?.worker != routed else { return nil }
        return inFlight(of: routed) < settings.concurrency ? routed : nil
    }

    /// When it has waited long enough.
    private func giveUpAt(_ id: RequestID) -> Instant? {
        guard let request = requests[id] else { return nil }
        let end = request.heldSince + settings.hold
        guard let lostAt = request.lostAt, routed != nil, request.worker == routed else { return end }
        return min(lostAt + Self.deathNotice, end)
    }

    /// Lets go who can, in order, a batch at a time.
    private mutating func release(at now: Instant, _ out: inout [AdmissionAction]) {
        releaseAt = nil
        if suspect != nil, suspectUntil <= now { suspect = nil }
        guard routed != nil, held > 0 else { return }
        var left = Self.releaseBatch
        for id in retries where left > 0 {
            guard let worker = freeWorker(for: id) else { continue }
            retries.removeAll { $0 == id }
            forward(id, to: worker, &out)
            left -= 1
        }
        var gone = 0
        while left > 0, gone < queue.count, let worker = freeWorker(for: queue[gone]) {
            forward(queue[gone], to: worker, &out)
            gone += 1
            left -= 1
        }
        queue.removeFirst(gone)
        if left == 0, (retries + queue.prefix(1)).contains(where: { freeWorker(for: $0) != nil }) { releaseAt = now }
    }

    private mutating func forward(_ id: RequestID, to worker: Generation, _ out: inout [AdmissionAction]) {
        guard var request = requests[id] else { return }
        if request.isHeld { heldBytes -= request.bytes }
        request.isHeld = false
        request.worker = worker
        requests[id] = request
        count(request, worker, 1)
        out.append(.forward(id, worker))
    }

    /// Makes it wait, where somebody can come for it and there is room.
    private mutating func hold(_ id: RequestID, asRetry: Bool, at now: Instant, _ out: inout [AdmissionAction]) {
        guard let request = requests[id] else { return }
        requests[id]?.isHeld = true
        heldBytes += request.bytes
        if asRetry { retries.append(id) } else { queue.append(id) }
        if case .refuse(let reason, let retryAfter) = route {
            end(id, .refuse(id, .notReady(reason), retryAfter: retryAfter), &out)
        } else if case .lastCall(let last) = route, request.worker == last {
            end(id, .fail(id), &out)
        } else if held > settings.heldRequests || heldBytes > settings.heldBytes {
            end(id, .refuse(id, .queueFull, retryAfter: .seconds(1)), &out)
        }
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
            if let place = retries.firstIndex(of: id) { retries.remove(at: place) }
        } else if let worker = request.worker {
            count(request, worker, -1)
        }
    }

    private mutating func count(_ request: Request, _ worker: Generation, _ change: Int) {
        switch request.kind {
        case .plain: loads[worker, default: Load()].plain += change
        case .stream, .tunnel: loads[worker, default: Load()].lasting += change
        }
    }

    /// Tells what has become true of a worker that drains, and drops the counts of one that has nothing.
    private mutating func tellEdges(of worker: Generation, _ out: inout [AdmissionAction]) {
        guard var load = loads[worker], load.plain == 0 else { return }
        if load.lasting == 0 {
            loads[worker] = nil
            if load.owesDrained { out.append(.tell(.drained(worker))) }
        } else if load.owesOnlyStreams {
            load.owesOnlyStreams = false
            loads[worker] = load
            out.append(.tell(.onlyStreamsLeft(worker)))
        }
    }
}
