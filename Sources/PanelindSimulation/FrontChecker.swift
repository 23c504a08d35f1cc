//  FrontChecker.swift
//  Judges what Admission does with every request, by a model of its own: who waits since when, who has what.
//  It hears what Admission was told and what it answered, and asks it for nothing but its counts. Read Law.swift first.

import PanelindCore

/// The judge of the simulated front.
final class FrontChecker {
    /// A worker that lost a request and has not died within this is alive, and gets it again.
    static let deathNotice: Duration = .milliseconds(250)

    /// So long nothing goes to a worker that left a request untouched.
    static let suspicion: Duration = .milliseconds(5)

    private struct Seen {
        let bytes: Int
        let canRetry: Bool
        var forwards = 0
        /// Losses of which a byte may have reached the worker.
        var sentLosses = 0
        var lostAt: Instant?
        /// The call in which its loser turned out to be alive.
        var freedIn = -1
        var isHeld = true
        var isOver = false
        /// It was lost, and waits to be made again.
        var isRetry = false
        var isTouched = false
        var hasHead = false
        var heldSince: Instant
        var forwardedAt = Instant.zero
        var worker: Generation?
        var lasts = false
    }

    private struct Load {
        var plain = 0
        var lasting = 0
        var owesDrained = false
        var owesStreams = false
    }

    /// The first law that was broken.
    private(set) var violation: Violation?
    private(set) var routeBefore = Route.hold
    private var settings: AdmissionSettings
    private var route = Route.hold
    /// By the ordinal, less those at the front that are over.
    private var seen: [Seen] = []
    private var firstSeen: UInt64 = 1
    private var waiting: [RequestID] = []
    private var waitingFrom = 0
    private var retries: [RequestID] = []
    private var heldCount = 0
    private var heldBytes = 0
    private var loads: [Load] = []
    private var now = Instant.zero
    private var timesNow = 0
    /// The worker that left a request untouched last, and how long it may be dying.
    private var suspect: (worker: Generation, until: Instant)?
    private var calls = 0
    /// The worker whose load the last call was about.
    private(set) var concerned: Generation?

    init(_ settings: AdmissionSettings) { self.settings = settings }

    /// Judges one call and its answer.
    /// - Parameters:
    ///   - held: how many requests Admission holds after it.
    ///   - deadline: Admission's after it.
    func judge(
        _ cause: AdmissionCause, _ actions: [AdmissionAction], held: Int, deadline: Instant?, at now: Instant
    ) {
        guard violation == nil else { return }
        timesNow = now == self.now ? timesNow + 1 : 0
        calls += 1
        self.now = now
        require(timesNow < 20_000, .progress, "\(timesNow) calls of the front at this instant")
        routeBefore = route
        let was = heldCount
        note(cause)
        for action in actions { judge(action, cause) }
        require(held == heldCount, .oneOutcome, "\(held) are held where \(heldCount) should be")
        concerned = worker(of: cause)
        judgeWaiting(cause, heldBefore: was, deadline)
    }

    private func require(_ holds: Bool, _ law: Law, _ details: @autoclosure () -> String) {
        guard !holds, violation == nil else { return }
        violation = Violation(law: law, at: now, details: details())
    }

    private func place(_ id: RequestID) -> Int? {
        guard id.number >= firstSeen, id.number - firstSeen < UInt64(seen.count) else { return nil }
        return Int(id.number - firstSeen)
    }

    private func load(_ generation: Generation) -> Int {
        while loads.count <= generation.number { loads.append(Load()) }
        return generation.number
    }

    private func count(_ it: Seen, _ change: Int) {
        guard let worker = it.worker else { return }
        let i = load(worker)
        if it.lasts { loads[i].lasting += change } else { loads[i].plain += change }
    }

    // MARK: What it was told

    private func note(_ cause: AdmissionCause) {
        switch cause {
        case .arrive(let id, let bytes, let canRetry):
            if seen.isEmpty { firstSeen = id.number }
            require(id.number == firstSeen + UInt64(seen.count), .inOrder, "request \(id.number) is out of turn")
            seen.append(Seen(bytes: bytes, canRetry: canRetry, heldSince: now))
            waiting.append(id)
            heldCount += 1
            heldBytes += bytes
        case .answered(let id, let part):
            guard let i = place(id), !seen[i].isOver, !seen[i].isHeld else { return }
            seen[i].isTouched = true
            guard case .head(let kind) = part else { return }
            count(seen[i], -1)
            seen[i].hasHead = true
            seen[i].lasts = kind != .plain
            count(seen[i], 1)
        case .lost(let id, let unsent):
            guard let i = place(id), !seen[i].isOver, !seen[i].isHeld else { return }
            if !seen[i].isTouched, let worker = seen[i].worker { suspect = (worker, now + Self.suspicion) }
            guard canGoAgain(seen[i], unsent) else { return }
            count(seen[i], -1)
            seen[i].isHeld = true
            seen[i].isRetry = true
            seen[i].lostAt = now
            if unsent {
                // What a worker had it for is no waiting.
                seen[i].heldSince = seen[i].heldSince + (now - seen[i].forwardedAt)
            } else {
                seen[i].sentLosses += 1
                seen[i].heldSince = now
            }
            retries.append(id)
            heldCount += 1
            heldBytes += seen[i].bytes
        case .ended(let id): end(id)
        case .take(let route): self.route = route
        case .use(let settings):
            self.settings = settings
            free()
        case .time: free()
        case .report(let generation):
            let i = load(generation)
            loads[i].owesDrained = true
            loads[i].owesStreams = true
        case .cut: break
        }
    }

    /// Untouched, and either never sent, or safe and lost for the first time.
    private func canGoAgain(_ it: Seen, _ unsent: Bool) -> Bool {
        !it.isTouched && (unsent || (it.canRetry && it.sentLosses == 0))
    }

    /// Losers that have not died meanwhile are as good as any other worker.
    private func free() {
        for id in retries {
            guard let i = place(id), isWithLoser(seen[i]), let lostAt = seen[i].lostAt,
                now >= lostAt + Self.deathNotice, now < seen[i].heldSince + settings.hold
            else { continue }
            seen[i].worker = nil
            seen[i].freedIn = calls
        }
    }

    private func end(_ id: RequestID) {
        guard let i = place(id), !seen[i].isOver else { return }
        seen[i].isOver = true
        if seen[i].isHeld { letGo(i, id) } else { count(seen[i], -1) }
        // What is over at the front is forgotten, a hundred at a time.
        guard seen.count > 200, seen[0..<100].allSatisfy(\.isOver) else { return }
        seen.removeFirst(100)
        firstSeen += 100
    }

    private func letGo(_ i: Int, _ id: RequestID) {
        seen[i].isHeld = false
        heldCount -= 1
        heldBytes -= seen[i].bytes
        if seen[i].isRetry { retries.removeAll { $0 == id } }
        while waitingFrom < waiting.count, !waits(waiting[waitingFrom]) { waitingFrom += 1 }
        guard waitingFrom == waiting.count else { return }
        waiting.removeAll(keepingCapacity: true)
        waitingFrom = 0
    }

    private func waits(_ id: RequestID) -> Bool {
        guard let i = place(id) else { return false }
        return seen[i].isHeld && !seen[i].isRetry
    }

    private var firstWaiting: RequestID? { waitingFrom < waiting.count ? waiting[waitingFrom] : nil }

    private func hasRoom(_ generation: Generation) -> Bool {
        let i = load(generation)
        return loads[i].plain + loads[i].lasting < settings.concurrency
    }

    /// The worker that could take it now.
    private func taker(_ it: Seen) -> Generation? {
        guard let target = route.target, it.worker != target, hasRoom(target), !isSuspect(target) else { return nil }
        return target
    }

    private func isSuspect(_ generation: Generation) -> Bool {
        guard let suspect else { return false }
        return suspect.worker == generation && now < suspect.until
    }

    /// A lost request whose worker is still the one that is routed to.
    private func isWithLoser(_ it: Seen) -> Bool { it.isRetry && it.worker != nil && it.worker == route.target }

    private func mayWaitUntil(_ it: Seen) -> Instant {
        let end = it.heldSince + settings.hold
        guard isWithLoser(it), let lostAt = it.lostAt else { return end }
        return min(lostAt + Self.deathNotice, end)
    }

    // MARK: What it did

    private func judge(_ action: AdmissionAction, _ cause: AdmissionCause) {
        switch action {
        case .forward(let id, let generation):
            guard let i = place(id), !seen[i].isOver else {
                return require(false, .oneOutcome, "request \(id.number) is over and goes to \(generation)")
            }
            judgeForward(id, i, generation)
        case .refuse(let id, let why, let retryAfter):
            if let i = outcome(id, action) { judgeRefusal(id, seen[i], why, retryAfter, cause) }
            end(id)
        case .fail(let id):
            if let i = outcome(id, action) { judgeFailure(id, seen[i], cause) }
            end(id)
        case .timeOut(let id), .abort(let id):
            if let i = outcome(id, action) {
                let it = seen[i]
                var isAbort = false
                if case .abort = action { isAbort = true }
                var isDue = false
                if case .cut(let generation) = cause { isDue = it.worker == generation && !it.isHeld }
                if case .lost(id, _) = cause, isAbort { isDue = true }
                require(isDue && it.hasHead == isAbort, .oneOutcome, "\(action) comes of \(cause)")
            }
            end(id)
        case .tell(.refused): break  // The front's own news, not Admission's.
        case .tell(.drained(let generation)):
            let i = load(generation)
            require(
                loads[i].owesDrained && loads[i].plain + loads[i].lasting == 0, .drainTold,
                "\(generation) is told to be drained with \(loads[i])")
            loads[i].owesDrained = false
            loads[i].owesStreams = false
        case .tell(.onlyStreamsLeft(let generation)):
            let i = load(generation)
            require(
                loads[i].owesStreams && loads[i].plain == 0 && loads[i].lasting > 0, .drainTold,
                "\(generation) is told to have only streams with \(loads[i])")
            loads[i].owesStreams = false
        }
    }

    private func outcome(_ id: RequestID, _ action: AdmissionAction) -> Int? {
        guard let i = place(id), !seen[i].isOver else {
            require(false, .oneOutcome, "request \(id.number) is over: \(action)")
            return nil
        }
        return i
    }

    private func judgeForward(_ id: RequestID, _ i: Int, _ generation: Generation) {
        let it = seen[i]
        require(route.target == generation, .routedOnly, "request \(id.number) goes to \(generation) under \(route)")
        require(
            it.isHeld && it.worker != generation && !it.isTouched && (it.forwards == 0 || it.isRetry)
                && it.sentLosses <= (it.canRetry ? 1 : 0), .onceOnly,
            "request \(id.number) goes to \(generation) after \(it)")
        require(!isSuspect(generation), .routedOnly, "request \(id.number) goes to \(generation), which may be dying")
        require(hasRoom(generation), .bounded, "\(generation) has \(loads[load(generation)]) and gets one more")
        for retry in retries {
            guard retry != id else { break }
            guard let j = place(retry), seen[j].worker != generation, seen[j].freedIn != calls else { continue }
            require(false, .inOrder, "request \(id.number) goes before \(retry.number), which was lost")
        }
        if !it.isRetry, let first = firstWaiting {
            require(first == id, .inOrder, "request \(id.number) goes before \(first.number)")
        }
        letGo(i, id)
        seen[i].forwards += 1
        seen[i].forwardedAt = now
        seen[i].worker = generation
        count(seen[i], 1)
    }

    private func judgeRefusal(
        _ id: RequestID, _ it: Seen, _ why: Refusal, _ retryAfter: Duration, _ cause: AdmissionCause
    ) {
        require(it.isHeld, .noneRefusedEarly, "request \(id.number) is with \(it.worker.map { "\($0)" } ?? "nobody")")
        switch why {
        case .notReady(let reason):
            // Never sent to the last worker that there is: it is nobody's failure.
            if case .lastCall(let last) = route, it.worker == last, it.sentLosses == 0, reason == .draining { return }
            require(
                route == .refuse(reason, retryAfter: retryAfter), .noneRefusedEarly,
                "request \(id.number) is refused for \(reason) under \(route)")
            return
        case .queueFull:
            var isNew = false
            if case .arrive(id, _, _) = cause { isNew = true }
            if case .lost(id, _) = cause { isNew = true }
            require(
                isNew && (heldCount > settings.heldRequests || heldBytes > settings.heldBytes), .noneRefusedEarly,
                "the queue is full with \(heldCount) requests, \(heldBytes) bytes")
        case .holdOver:
            require(
                now >= it.heldSince + settings.hold, .noneRefusedEarly,
                "request \(id.number) has waited for \((now - it.heldSince).text)")
        }
        require(taker(it) == nil, .noneRefusedEarly, "request \(id.number): \(route) has room for it")
    }

    private func judgeFailure(_ id: RequestID, _ it: Seen, _ cause: AdmissionCause) {
        require(!it.hasHead, .oneOutcome, "request \(id.number) has an answer and gets 502")
        if case .lost(id, _) = cause, !it.isHeld { return }
        var isHopeless = false
        if case .lastCall(let last) = route, it.worker == last { isHopeless = it.sentLosses > 0 }
        require(
            it.isHeld && isHopeless, .noneRefusedEarly,
            "request \(id.number) gets 502 after \((now - it.heldSince).text) under \(route)")
    }

    // MARK: What is true after it

    /// Whose load the call was about.
    private func worker(of cause: AdmissionCause) -> Generation? {
        switch cause {
        case .report(let generation), .cut(let generation): generation
        case .answered(let id, _), .lost(let id, _), .ended(let id), .arrive(let id, _, _):
            place(id).flatMap { seen[$0].worker }
        case .take, .use, .time: route.target
        }
    }

    /// Judges what the last call left to the worker that it was about.
    func judgeLoad(of worker: Generation, _ inFlight: Int, _ cause: AdmissionCause) {
        let load = loads[load(worker)]
        let isIdle = load.plain + load.lasting == 0
        if case .cut = cause { require(isIdle, .oneOutcome, "\(worker) is cut and has \(load)") }
        require(
            inFlight == load.plain + load.lasting, .oneOutcome,
            "\(inFlight) are in flight to \(worker) where \(load) should be")
        require(!(load.owesDrained && isIdle), .drainTold, "\(worker) is drained and nobody says so")
        require(
            !(load.owesStreams && !isIdle && load.plain == 0), .drainTold,
            "\(worker) has only streams and nobody says so")
    }

    private func judgeWaiting(_ cause: AdmissionCause, heldBefore: Int, _ deadline: Instant?) {
        guard heldCount > 0 else { return }
        if heldCount > heldBefore {
            require(
                heldCount <= settings.heldRequests && heldBytes <= settings.heldBytes, .bounded,
                "\(heldCount) requests are held, \(heldBytes) bytes")
        }
        if case .refuse = route { require(false, .noneWaitsInVain, "\(heldCount) wait under \(route)") }
        // All of them where time or place changed; else those whose turn is next.
        let isTime = if case .time = cause { true } else { false }
        switch cause {
        case .time, .take, .use: for id in retries { judgeWait(id, isTime: isTime, deadline) }
        default:
            if let first = retries.first { judgeWait(first, isTime: false, deadline) }
            if retries.count > 1, let last = retries.last { judgeWait(last, isTime: false, deadline) }
        }
        if let firstWaiting { judgeWait(firstWaiting, isTime: isTime, deadline) }
    }

    private func judgeWait(_ id: RequestID, isTime: Bool, _ deadline: Instant?) {
        guard let i = place(id) else { return }
        let until = mayWaitUntil(seen[i])
        let isTaken = taker(seen[i]) != nil
        require(
            deadline.map { $0 <= until } ?? false, .noneWaitsInVain,
            "nothing is due when request \(id.number) has waited long enough")
        require(
            !isTaken || deadline.map { $0 <= now } ?? false, .noneWaitsInVain,
            "request \(id.number) waits and \(route) has room")
        require(
            !isTime || until > now || isTaken, .noneWaitsInVain,
            "request \(id.number) has waited for \((now - seen[i].heldSince).text)")
    }
}
