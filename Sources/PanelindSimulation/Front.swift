//  Front.swift
//  The simulated front: it obeys the real Admission as the daemon's does, and its upstreams are the simulated workers.
//  They answer, refuse, accept and close, hang and die; kept connections turn out stale. Read Client.swift first.

import PanelindCore

/// What the front hears of one upstream.
enum UpstreamNews: Sendable {
    case firstByte, head, end
    /// Reset, or an end without an answer.
    case lost
    /// The connection was refused: no byte of the request went.
    case refused
}

/// What Admission was told.
enum AdmissionCause {
    case arrive(RequestID, bytes: Int, canRetry: Bool)
    case answered(RequestID, AnswerPart)
    case lost(RequestID, unsent: Bool)
    case ended(RequestID)
    case take(Route)
    case use(AdmissionSettings)
    case report(Generation)
    case cut(Generation)
    case time
}

/// One request and its client, who has no outcome yet.
struct Exchange {
    let id: RequestID
    let client: Client
    /// It came in a healed world, and no reload may harm it.
    let isSafe: Bool
    var attempt = 0
    /// Who has it, unless it waits.
    var worker: Generation?
    var hasHead = false
}

/// Those under way, by the ordinal of the request: a place is found without a hash.
struct Exchanges {
    private var places: [Exchange?] = []
    private var first: UInt64 = 1
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    subscript(id: RequestID) -> Exchange? {
        get {
            guard id.number >= first, id.number - first < UInt64(places.count) else { return nil }
            return places[Int(id.number - first)]
        }
        set {
            while first + UInt64(places.count) <= id.number { places.append(nil) }
            guard id.number >= first else { return }
            let i = Int(id.number - first)
            count += (newValue == nil ? 0 : 1) - (places[i] == nil ? 0 : 1)
            places[i] = newValue
            guard places.count > 200, places[0..<100].allSatisfy({ $0 == nil }) else { return }
            places.removeFirst(100)
            first += 100
        }
    }

    func ids(where condition: (Exchange) -> Bool) -> [RequestID] {
        guard count > 0 else { return [] }
        return places.compactMap { $0.flatMap { condition($0) ? $0.id : nil } }
    }
}

/// The front's own state: what is under way, and connections kept open.
struct Front {
    var admission: Admission
    var exchanges = Exchanges()
    /// Idle connections to each worker.
    var kept: [Generation: Int] = [:]
    var deadline: Instant?
    var firesAt: Instant?

    init(_ settings: AdmissionSettings) { admission = Admission(settings) }

    // Mutating, since a class's property is copied for a getter, and this is asked at every step.

    /// What Admission holds, and when it is due.
    mutating func look() -> (held: Int, deadline: Instant?) { (admission.held, admission.deadline) }

    /// What this worker has.
    mutating func inFlight(of generation: Generation) -> Int { admission.inFlight(of: generation) }
}

extension World {
    // MARK: Clients

    /// The next client comes, or many at once, and the one after it is planned.
    func welcome() {
        guard let traffic = plan.traffic else { return }
        let mean = Int(traffic.nanoseconds / 1_000_000)
        agenda.plan(.client, at: now + clientRandom.duration(0...(2 * mean)))
        judgeService()
        welcome(clientRandom.chance(4) ? clientRandom.pick(10, 80, 300) : 1)
    }

    /// So many come now.
    func welcome(_ count: Int) {
        guard plan.settings.mode == .front else { return }
        for _ in 0..<count { arrive(Client.draw(&clientRandom, isCalm: isHealed || !plan.troublesClients)) }
    }

    /// A whole head came.
    func arrive(_ client: Client) {
        let (id, actions) = front.admission.arrive(bytes: client.bytes, canRetry: client.canRetry, at: now)
        let drain = checker.settings.stop.drain
        // Streams are the worker's own to end.
        let isShort = client.kind == .plain && client.headAfter + client.lasts + .milliseconds(100) < drain
        front.exchanges[id] = Exchange(id: id, client: client, isSafe: losesNobody && isShort)
        if let leaves = client.leavesAfter { agenda.plan(.leave(id), at: now + leaves) }
        obey(actions, .arrive(id, bytes: client.bytes, canRetry: client.canRetry))
    }

    /// The client is gone.
    func leave(_ id: RequestID) {
        guard front.exchanges[id] != nil else { return }
        front.exchanges[id] = nil
        obey(front.admission.ended(id, at: now), .ended(id))
    }

    // MARK: What the machine asks for

    func perform(_ action: FrontAction) {
        switch action {
        case .route(let route):
            obey(front.admission.take(route, at: now), .take(route))
            // Who comes while more than one batch waits goes behind it.
            if route.target != nil, front.look().held > 0, plan.traffic != nil { welcome(1) }
        case .reportDrain(let generation): obey(front.admission.reportDrain(generation), .report(generation))
        case .cut(let generation): obey(front.admission.cut(generation, at: now), .cut(generation))
        case .dropIdle: front.kept = [:]
        }
    }

    /// A reload took over.
    func useAdmission(_ settings: AdmissionSettings) {
        obey(front.admission.use(settings, at: now), .use(settings))
    }

    /// The front's timer fired.
    func frontTime() { obey(front.admission.time(at: now), .time) }

    /// The generation is gone: whatever still counts on it has lost it.
    func forgetUpstream(_ generation: Generation) {
        front.kept[generation] = nil
        for id in exchanges(of: generation) { lose(id) }
    }

    private func obey(_ actions: [AdmissionAction], _ cause: AdmissionCause) {
        let (held, deadline) = front.look()
        frontChecker.judge(cause, actions, held: held, deadline: deadline, at: now)
        if let worker = frontChecker.concerned { frontChecker.judgeLoad(of: worker, front.inFlight(of: worker), cause) }
        coverage?.note(cause, frontChecker.routeBefore)
        for action in actions {
            switch action {
            case .forward(let id, let generation): forward(id, to: generation)
            case .refuse(let id, let why, _):
                if case .notReady = why { judgeSafety(id, action) }
                front.exchanges[id] = nil
            case .fail(let id), .timeOut(let id), .abort(let id):
                judgeSafety(id, action)
                front.exchanges[id] = nil
            case .tell(let news): answer(.front(news), within: 0...2, canBeLost: true)
            }
        }
        guard deadline != front.deadline else { return }
        front.deadline = deadline
        front.firesAt = deadline.map { $0 + random.duration(0...plan.answers.timerLate) }
    }

    private func judgeSafety(_ id: RequestID, _ action: AdmissionAction) {
        guard front.exchanges[id]?.isSafe == true, losesNobody else { return }
        checker.broke(.reloadLosesNobody, at: now, "\(action)")
    }

    // MARK: Upstreams

    private func exchanges(of generation: Generation) -> [RequestID] {
        front.exchanges.ids { $0.worker == generation }
    }

    private func forward(_ id: RequestID, to generation: Generation) {
        guard var exchange = front.exchanges[id] else { return }
        exchange.attempt += 1
        exchange.worker = generation
        front.exchanges[id] = exchange
        let attempt = exchange.attempt
        let client = exchange.client
        func plan(_ news: UpstreamNews, after: Duration) {
            agenda.plan(.upstream(id, attempt: attempt, news), at: now + after)
        }
        guard listens(generation), let i = worker(generation), let leader = kernel.process(workers[i].leader) else {
            return plan(.refused, after: .microseconds(300))
        }
        var connecting: Duration = .zero
        if let idle = front.kept[generation], idle > 0 {
            front.kept[generation] = idle - 1
            if !isHealed, clientRandom.chance(100) {
                // Stale. Nobody can tell whether a POST was taken; anything else is asked again on a fresh one.
                guard client.canRetry else { return plan(.lost, after: .microseconds(200)) }
                connecting = .milliseconds(1)
            }
        }
        switch client.trouble {
        case .none: break
        case .dropped: return plan(.lost, after: client.headAfter)
        case .deadly:
            let status = ExitStatus.signal(Signal(number: 11), coreDumped: true)
            agenda.plan(.play(process: leader.id, .end(status, oom: false)), at: now + client.headAfter)
            return
        }
        func script(_ news: UpstreamNews, after: Duration) {
            agenda.plan(.play(process: leader.id, .answer(id, attempt: attempt, news)), at: now + connecting + after)
        }
        if client.hasInterim { script(.firstByte, after: client.headAfter / 2) }
        if client.lasts > .zero || client.kind != .plain { script(.head, after: client.headAfter) }
        script(.end, after: client.headAfter + client.lasts)
    }

    /// The worker answers; the front hears of it, once it runs.
    func answerClient(_ id: RequestID, attempt: Int, _ news: UpstreamNews) {
        if now < frozenUntil {
            agenda.plan(.upstream(id, attempt: attempt, news), at: frozenUntil)
        } else {
            hear(id, attempt: attempt, news)
        }
    }

    /// The front hears this of an upstream.
    func hear(_ id: RequestID, attempt: Int, _ news: UpstreamNews) {
        guard let exchange = front.exchanges[id], exchange.attempt == attempt, let worker = exchange.worker
        else { return }
        switch news {
        case .firstByte: obey(front.admission.answered(id, .firstByte, at: now), .answered(id, .firstByte))
        case .head:
            front.exchanges[id]?.hasHead = true
            let part = AnswerPart.head(exchange.client.kind)
            obey(front.admission.answered(id, part, at: now), .answered(id, part))
        case .end:
            if exchange.client.kind != .tunnel { front.kept[worker, default: 0] += 1 }
            leave(id)
        case .lost: lose(id)
        case .refused:
            if let i = self.worker(worker), workers[i].isRefusing, workers[i].refusedSince == nil {
                workers[i].refusedSince = now
            }
            tell(.front(.refused(worker)))
            lose(id, unsent: true)
        }
    }

    /// Whether the worker's address takes a connection; one that hangs or sleeps leaves it in its queue.
    func listens(_ generation: Generation) -> Bool {
        guard let i = worker(generation), kernel.process(workers[i].leader)?.isAlive == true else { return false }
        return workers[i].isUp && !workers[i].isStopping && !workers[i].isRefusing
    }

    private func lose(_ id: RequestID, unsent: Bool = false) {
        front.exchanges[id]?.worker = nil
        obey(front.admission.lost(id, unsent: unsent, at: now), .lost(id, unsent: unsent))
    }

    /// Its leader died: its connections end, before or after anybody hears of the death.
    func dropUpstream(_ generation: Generation) {
        front.kept[generation] = nil
        for id in exchanges(of: generation) {
            guard let attempt = front.exchanges[id]?.attempt else { continue }
            agenda.plan(.upstream(id, attempt: attempt, .lost), at: now + clientRandom.duration(0...3))
        }
    }

    /// It was told to stop, and ends its streams before it goes.
    func sayGoodbye(_ i: Int) {
        guard let within = workers[i].behaviour.stopsWithin else { return }
        for id in exchanges(of: workers[i].generation) {
            guard let exchange = front.exchanges[id], exchange.hasHead, exchange.client.kind != .plain else { continue }
            agenda.plan(
                .play(process: workers[i].leader, .answer(id, attempt: exchange.attempt, .end)), at: now + within / 2)
        }
    }

    // MARK: What a client would have seen

    /// The probes had their time to notice that the worker that is said to be ready does not serve.
    private func judgeService() {
        guard snapshot?.isReady == true, let generation = checker.route.target, let i = worker(generation) else {
            return
        }
        let worker = workers[i]
        // Its address is asked a moment later, and silence is an answer after a second.
        if let since = worker.refusedSince, now > max(since, checker.thawedAt) + .milliseconds(1200) {
            checker.broke(
                .readyIsTrue, at: now, "\(worker.generation) has refused connections for \((now - since).text)")
        }
        guard let since = worker.deafSince else { return }
        guard !worker.speaksReadiness, plan.settings.mode != .socket else { return }
        var probe = worker.settings.worker.readiness
        if probe == nil, case .ask(let implied) = worker.settings.worker.impliedReadiness { probe = implied }
        guard let probe, probe.method.isAsked, !worker.hasSaidReady else { return }
        let noticed = probe.period + (probe.timeout + .seconds(1)) * probe.failures + .seconds(2)
        if now > max(since, checker.thawedAt) + noticed {
            checker.broke(
                .readyIsTrue, at: now, "requests to \(worker.generation) have failed for \((now - since).text)")
        }
    }
}

extension Route {
    /// Whom requests go to.
    var target: Generation? {
        switch self {
        case .forward(let generation), .lastCall(let generation): generation
        case .hold, .refuse: nil
        }
    }
}
