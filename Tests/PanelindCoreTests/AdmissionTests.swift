//  AdmissionTests.swift
//  Requests on the front: held, forwarded, retried, refused, drained, cut.
//  Pure: the clock is an argument. Read Front.swift and Sources/PanelindCore/Admission.swift first.

import Testing

@testable import PanelindCore

@Suite("Admission")
struct AdmissionTests {
    static let g1 = Generation(1), g2 = Generation(2), g3 = Generation(3)

    // MARK: Holding

    @Test("requests that come while no worker is ready wait, and go in their order")
    func order() {
        var front = Front(.hold)
        let ids = (1...10).map { _ in front.get() }
        #expect(front.log.isEmpty)
        #expect(front.admission.held == 10)
        front.route(.forward(Self.g1))
        #expect(front.log == ids.map { .forward($0, Self.g1) })
        #expect(front.admission.held == 0)
        #expect(front.admission.inFlight == 10)
    }

    @Test("one more than may wait is refused at once, and the others keep their places")
    func queueFull() {
        var front = Front(.hold) { $0.heldRequests = 3 }
        let ids = (1...4).map { _ in front.get() }
        #expect(front.log == [.refuse(ids[3], .queueFull, retryAfter: .seconds(1))])
        front.end(ids[0])
        let next = front.get()
        #expect(front.fate(next).isEmpty)
        #expect(front.admission.held == 3)
    }

    @Test("held heads are bounded in bytes, and the bytes come back")
    func bytes() {
        var front = Front(.hold) { $0.heldBytes = 1000 }
        let first = front.get(bytes: 600)
        let second = front.get(bytes: 600)
        #expect(front.log == [.refuse(second, .queueFull, retryAfter: .seconds(1))])
        front.end(first)
        let third = front.get(bytes: 1000)
        #expect(front.fate(third).isEmpty)
        front.route(.forward(Self.g1))
        front.route(.hold)
        let fourth = front.get(bytes: 1000)
        #expect(front.fate(fourth).isEmpty)
    }

    @Test("a request waits for the hold, and no longer")
    func holdOver() {
        var front = Front(.hold)
        let first = front.get()
        front.pass(.seconds(4))
        let second = front.get()
        #expect(front.admission.deadline == front.now + .seconds(6))
        front.pass(.milliseconds(5999))
        #expect(front.log.isEmpty)
        front.pass(.milliseconds(1))
        #expect(front.log == [.refuse(first, .holdOver, retryAfter: .seconds(1))])
        front.pass(.seconds(4))
        #expect(front.fate(second) == [.refuse(second, .holdOver, retryAfter: .seconds(1))])
        #expect(front.admission.deadline == nil)
    }

    @Test("where no worker can come, those that wait and those that come are refused with the reason")
    func refused() {
        var front = Front(.hold)
        let first = front.get()
        front.route(.refuse(.workerFailed, retryAfter: .seconds(30)))
        let second = front.get()
        for id in [first, second] {
            #expect(front.fate(id) == [.refuse(id, .notReady(.workerFailed), retryAfter: .seconds(30))])
        }
        #expect(front.admission.held == 0)
    }

    @Test("a held client that leaves is forgotten")
    func leaves() {
        var front = Front(.hold)
        let first = front.get()
        let second = front.get()
        front.end(first)
        front.route(.forward(Self.g1))
        #expect(front.log == [.forward(second, Self.g1)])
        front.end(first)
        #expect(front.admission.inFlight == 1)
    }

    // MARK: Capacity

    @Test("more than the worker may have wait, and follow as others end")
    func capacity() {
        var front = Front { $0.concurrency = 2 }
        let ids = (1...4).map { _ in front.get() }
        #expect(front.admission.inFlight == 2)
        #expect(front.admission.held == 2)
        front.end(ids[0])
        #expect(front.log.last == .forward(ids[2], Self.g1))
        front.end(ids[2])
        #expect(front.log.last == .forward(ids[3], Self.g1))
        #expect(front.admission.inFlight == 2)
    }

    @Test("nobody overtakes those that wait for room")
    func noOvertaking() {
        var front = Front { $0.concurrency = 1 }
        let first = front.get()
        let second = front.get()
        let third = front.get()
        front.end(first)
        front.end(second)
        #expect(front.log == [.forward(first, Self.g1), .forward(second, Self.g1), .forward(third, Self.g1)])
    }

    @Test("the capacity of a new worker is its own")
    func ownCapacity() {
        var front = Front { $0.concurrency = 1 }
        _ = front.get()
        front.route(.forward(Self.g2))
        let second = front.get()
        #expect(front.fate(second) == [.forward(second, Self.g2)])
        #expect(front.admission.inFlight(of: Self.g1) == 1)
    }

    @Test("a full queue is let go in batches, and all of it goes")
    func herd() {
        var front = Front(.hold) { $0.heldRequests = 500 }
        let ids = (1...500).map { _ in front.get() }
        front.route(.forward(Self.g1))
        #expect(front.log.count == Admission.releaseBatch)
        #expect(front.admission.deadline == front.now)
        front.pass(.zero)
        #expect(front.log == ids.map { .forward($0, Self.g1) })
        #expect(front.admission.deadline == nil)
    }

    @Test("who waited long enough and could be served now is served, though the batch is full")
    func lateHerd() {
        var front = Front(.hold) { $0.heldRequests = 500 }
        let ids = (1...300).map { _ in front.get() }
        // Nobody ran for longer than the hold; the route is heard of before the timer.
        front.now = front.now + .seconds(30)
        front.route(.forward(Self.g1))
        front.pass(.zero)
        #expect(front.log == ids.map { .forward($0, Self.g1) })
    }

    @Test("new settings hold for those that wait, and open the room they give")
    func newSettings() {
        var front = Front { $0.concurrency = 1 }
        _ = front.get()
        let second = front.get()
        var settings = front.admission.settings
        settings.concurrency = 2
        front.note(front.admission.use(settings, at: front.now))
        #expect(front.fate(second) == [.forward(second, Self.g1)])
    }

    // MARK: A worker that dies

    @Test("an untouched GET is made once more on the next worker, ahead of those that wait")
    func retry() {
        var front = Front()
        let get = front.get()
        front.lose(get)
        #expect(front.fate(get) == [.forward(get, Self.g1)])
        front.route(.hold)
        let later = front.get()
        front.pass(.seconds(1))
        front.route(.forward(Self.g2))
        #expect(front.log.suffix(2) == [.forward(get, Self.g2), .forward(later, Self.g2)])
        front.lose(get)
        #expect(front.fate(get).last == .fail(get))
        #expect(front.admission.inFlight == 1)
    }

    @Test("a POST is never made twice")
    func post() {
        var front = Front()
        let post = front.post()
        front.lose(post)
        front.route(.forward(Self.g2))
        #expect(front.fate(post) == [.forward(post, Self.g1), .fail(post)])
    }

    @Test("a GET of which a byte of answer came is not retried; one that was begun is cut off")
    func touched() {
        var front = Front()
        let touched = front.get()
        front.answer(touched, .firstByte)
        front.lose(touched)
        #expect(front.fate(touched).last == .fail(touched))
        let begun = front.get()
        front.answer(begun, .firstByte)
        front.answer(begun, .head(.plain))
        front.lose(begun)
        #expect(front.fate(begun).last == .abort(begun))
        #expect(front.admission.inFlight == 0)
    }

    @Test("a worker that lost a request gets it once more if it turns out to be alive, and others pass it meanwhile")
    func notTheSame() {
        var front = Front()
        let get = front.get()
        front.lose(get)
        let other = front.get()
        #expect(front.admission.held == 2)
        front.pass(Admission.suspicion)
        #expect(front.fate(other) == [.forward(other, Self.g1)])
        #expect(front.admission.held == 1)
        front.pass(Admission.deathNotice - Admission.suspicion - .nanoseconds(1))
        #expect(front.fate(get) == [.forward(get, Self.g1)])
        front.pass(.nanoseconds(1))
        #expect(front.fate(get) == [.forward(get, Self.g1), .forward(get, Self.g1)])
        #expect(front.admission.held == 0)
        front.lose(get)
        #expect(front.fate(get).last == .fail(get))
    }

    @Test("nothing goes to a worker for a moment after it left a request untouched: it may be dying")
    func suspicion() {
        var front = Front()
        let lost = front.post()
        front.lose(lost)
        #expect(front.fate(lost).last == .fail(lost))
        let saved = front.post()
        #expect(front.fate(saved).isEmpty)
        front.route(.hold)
        front.pass(.seconds(1))
        front.route(.forward(Self.g2))
        #expect(front.fate(saved) == [.forward(saved, Self.g2)])
    }

    @Test("a request that never reached its worker is made on the next, a POST too, as long as the hold lasts")
    func unsent() {
        var front = Front()
        let post = front.post()
        front.lose(post, unsent: true)
        #expect(front.admission.held == 1)
        front.route(.hold)
        front.pass(.seconds(1))
        front.route(.forward(Self.g2))
        #expect(front.fate(post) == [.forward(post, Self.g1), .forward(post, Self.g2)])
        front.lose(post)
        #expect(front.fate(post).last == .fail(post))
        front.pass(Admission.suspicion)
        let refused = front.post()
        for _ in 0..<100 {
            guard front.admission.inFlight == 1 else { break }
            front.lose(refused, unsent: true)
            front.pass(Admission.deathNotice)
        }
        #expect(front.fate(refused).last == .refuse(refused, .holdOver, retryAfter: .seconds(1)))
        #expect(front.fate(refused).count == 41)
    }

    @Test("the time that a hung worker had a request, without accepting it, is none of the hold's")
    func hung() {
        var front = Front(.hold)
        let post = front.post()
        front.pass(.seconds(2))
        front.route(.forward(Self.g1))
        front.pass(.seconds(9))
        front.route(.hold)
        front.lose(post, unsent: true)
        front.pass(.milliseconds(7999))
        #expect(front.fate(post) == [.forward(post, Self.g1)])
        front.pass(.milliseconds(1))
        #expect(front.fate(post).last == .refuse(post, .holdOver, retryAfter: .seconds(1)))
    }

    @Test("a lost request goes to a successor that is there already")
    func successorIsThere() {
        var front = Front()
        let get = front.get()
        front.route(.forward(Self.g2))
        front.lose(get)
        #expect(front.fate(get) == [.forward(get, Self.g1), .forward(get, Self.g2)])
        #expect(front.admission.inFlight(of: Self.g1) == 0)
    }

    @Test("in a last call no next worker comes: a lost request is answered 502")
    func lostInLastCall() {
        var front = Front()
        let get = front.get()
        front.route(.lastCall(Self.g1))
        front.lose(get)
        #expect(front.fate(get).last == .fail(get))
        var held = Front()
        let second = held.get()
        held.lose(second)
        held.route(.lastCall(Self.g1))
        #expect(held.fate(second).last == .fail(second))
    }

    @Test("a retry waits for the hold of its own, and is refused with the reason where none comes")
    func retryIsRefused() {
        var front = Front()
        let get = front.get()
        front.pass(.seconds(60))
        front.lose(get)
        front.route(.hold)
        front.pass(.milliseconds(9999))
        #expect(front.admission.held == 1)
        front.pass(.milliseconds(1))
        #expect(front.fate(get).last == .refuse(get, .holdOver, retryAfter: .seconds(1)))
        let second = front.get()
        front.route(.forward(Self.g2))
        front.lose(second)
        front.route(.refuse(.workerFailed, retryAfter: .seconds(30)))
        #expect(front.fate(second).last == .refuse(second, .notReady(.workerFailed), retryAfter: .seconds(30)))
    }

    // MARK: Drain

    @Test("in a last call a request that was never sent is refused, to be made again elsewhere")
    func neverSent() {
        let refused = { (id: RequestID) in
            AdmissionAction.refuse(id, .notReady(.draining), retryAfter: .seconds(1))
        }
        var front = Front(.lastCall(Self.g1))
        let id = front.post()
        front.lose(id, unsent: true)
        #expect(front.fate(id) == [.forward(id, Self.g1), refused(id)])
        var held = Front()
        let other = held.post()
        held.lose(other, unsent: true)
        held.route(.lastCall(Self.g1))
        #expect(held.fate(other) == [.forward(other, Self.g1), refused(other)])
    }

    @Test("who comes while a batch of lost requests still waits goes behind them")
    func behindTheLost() {
        var front = Front { $0.heldRequests = 500 }
        let lost = (0..<200).map { _ in front.get() }
        for id in lost { front.lose(id) }
        front.route(.forward(Self.g2))
        let late = front.get()
        #expect(front.fate(late).isEmpty)
        front.pass(.milliseconds(1))
        #expect(front.fate(late) == [.forward(late, Self.g2)])
        #expect(
            front.log.lastIndex(of: .forward(late, Self.g2))! > front.log.lastIndex(of: .forward(lost[199], Self.g2))!)
    }

    @Test("a last call serves and closes connections, and a refusal of a stop closes them too")
    func lastCall() {
        var front = Front()
        #expect(!front.admission.isLastCall)
        front.route(.lastCall(Self.g1))
        #expect(front.admission.isLastCall)
        let get = front.get()
        #expect(front.fate(get) == [.forward(get, Self.g1)])
        front.route(.refuse(.draining, retryAfter: .seconds(1)))
        #expect(front.admission.isLastCall)
        let late = front.get()
        #expect(front.fate(late) == [.refuse(late, .notReady(.draining), retryAfter: .seconds(1))])
        #expect(front.admission.inFlight == 1)
        front.route(.refuse(.workerBackoff, retryAfter: .seconds(20)))
        #expect(!front.admission.isLastCall)
    }

    @Test("an idle worker is drained as soon as somebody asks, and only then")
    func idle() {
        var front = Front()
        front.end(front.get())
        #expect(front.told.isEmpty)
        front.note(front.admission.reportDrain(Self.g1))
        #expect(front.told == [.drained(Self.g1)])
        front.end(front.get())
        #expect(front.told.count == 1)
    }

    @Test("each edge is told once: only streams left, then drained")
    func edges() {
        var front = Front()
        let plain = front.get()
        let stream = front.get()
        let tunnel = front.get()
        front.answer(stream, .head(.stream))
        front.answer(tunnel, .head(.tunnel))
        front.note(front.admission.reportDrain(Self.g1))
        #expect(front.told.isEmpty)
        front.end(plain)
        #expect(front.told == [.onlyStreamsLeft(Self.g1)])
        let another = front.get()
        front.end(another)
        front.end(stream)
        #expect(front.told.count == 1)
        front.end(tunnel)
        #expect(front.told == [.onlyStreamsLeft(Self.g1), .drained(Self.g1)])
    }

    @Test("the last plain request that becomes a stream is an edge, and so is one that is lost")
    func becomesStream() {
        var front = Front()
        let request = front.get()
        front.note(front.admission.reportDrain(Self.g1))
        front.answer(request, .head(.stream))
        #expect(front.told == [.onlyStreamsLeft(Self.g1)])
        front.lose(request)
        #expect(front.told == [.onlyStreamsLeft(Self.g1), .drained(Self.g1)])
    }

    @Test("the drain of one worker does not wait for another's requests")
    func separateDrains() {
        var front = Front()
        let old = front.get()
        front.route(.forward(Self.g2))
        _ = front.get()
        front.note(front.admission.reportDrain(Self.g1))
        #expect(front.told.isEmpty)
        front.end(old)
        #expect(front.told == [.drained(Self.g1)])
    }

    @Test("a cut answers 504 what was not begun, aborts what was, and leaves others alone")
    func cut() {
        var front = Front()
        let silent = front.get()
        let begun = front.get()
        let tunnel = front.get()
        front.answer(begun, .head(.plain))
        front.answer(tunnel, .head(.tunnel))
        front.route(.forward(Self.g2))
        let other = front.get()
        front.note(front.admission.cut(Self.g1, at: front.now))
        #expect(front.log.suffix(3) == [.timeOut(silent), .abort(begun), .abort(tunnel)])
        #expect(front.fate(other) == [.forward(other, Self.g2)])
        #expect(front.admission.inFlight(of: Self.g1) == 0)
        for id in [silent, begun, tunnel] {
            front.end(id)
            front.lose(id)
        }
        #expect(front.admission.inFlight == 1)
    }

    // MARK: Anything

    @Test("whatever happens, every request ends once, none is left, and the counts hold", arguments: UInt64(1)...12)
    func anything(seed: UInt64) {
        var random = RandomNumbers(seed: seed)
        var front = Front(.hold) {
            $0.heldRequests = 20
            $0.concurrency = 8
            $0.hold = .seconds(2)
        }
        var all: [RequestID] = []
        var idempotent: Set<RequestID> = []
        var gone: Set<RequestID> = []
        func pick() -> RequestID? { all.randomElement(using: &random) }
        for _ in 1...2000 {
            switch random.next() % 12 {
            case 0...4:
                let canRetry = random.next() % 2 == 0
                let id = front.get(canRetry: canRetry)
                all.append(id)
                if canRetry { idempotent.insert(id) }
            case 5, 6: if let id = pick() { front.end(id); gone.insert(id) }
            case 7: if let id = pick() { front.lose(id) }
            case 8: if let id = pick() { front.answer(id, random.next() % 2 == 0 ? .firstByte : .head(.stream)) }
            case 9:
                let g = Generation(Int(random.next() % 3) + 1)
                let routes: [Route] = [
                    .forward(g), .hold, .lastCall(g), .refuse(.workerBackoff, retryAfter: .seconds(3)),
                ]
                front.route(routes[Int(random.next() % 4)])
            case 10: front.note(front.admission.reportDrain(Generation(Int(random.next() % 3) + 1)))
            default: front.pass(.milliseconds(Int64(random.next() % 900)))
            }
            #expect(front.admission.held <= 20)
            for n in 1...3 { #expect(front.admission.inFlight(of: Generation(n)) <= 8) }
        }
        front.route(.refuse(.stopping, retryAfter: .seconds(1)))
        for n in 1...3 { front.note(front.admission.cut(Generation(n), at: front.now)) }
        #expect(front.admission.held == 0)
        #expect(front.admission.inFlight == 0)
        #expect(front.admission.deadline == nil)
        for id in all {
            let fate = front.fate(id)
            let forwards = fate.filter { if case .forward = $0 { true } else { false } }
            #expect(forwards.count <= (idempotent.contains(id) ? 2 : 1))
            #expect(fate.count - forwards.count <= 1)
            #expect(fate.count > forwards.count || gone.contains(id))
        }
    }
}
