//  Client.swift
//  A played client: requests one after the other or all at once, well behaved or not, that reads what it gets.
//  It complains of foreign bytes, of answers that should not be, and of those that should. Read Plan.swift first.

/// One connection to the front.
final class ClientConnection {
    /// What it has to say, in order.
    enum Item {
        case request(Plan)
        case health
        case malformed
    }

    /// How it behaves.
    enum Manner: Hashable { case good, halfCloses, closesWhenSent, resetsWhenSent, truncates, leavesEarly }

    let peer: Peer
    private unowned let round: Round
    private var items: [(item: Item, bytes: [UInt8])] = []
    private let manner: Manner
    /// The next goes when the one before is answered.
    private let waits: Bool
    private var sent = 0
    private var index = 0
    private var reader = Reader()
    private var head: Head?
    private var status = 0
    private var framing = Reader.Framing.done
    private var received = 0
    private var isTunnel = false
    /// The front said that nothing follows.
    private var isLast = false
    private(set) var isDone = false

    init(_ peer: Peer, _ round: Round, isHostile: Bool) {
        self.peer = peer
        self.round = round
        let manners: [Manner] = [.halfCloses, .closesWhenSent, .resetsWhenSent, .truncates, .leavesEarly]
        manner =
            isHostile && round.dice.once(in: 3)
            ? round.dice.pick(manners) : round.dice.once(in: 5) ? .halfCloses : .good
        waits = round.dice.once(in: 2)
        peer.pause = round.dice.pick([0, 0, 0, 0, 0, 0, 1, 3])
        addItems(isHostile)
        round.note("client", peer, "is \(manner), \(items.count) items, waits \(waits)")
        sendOn()
    }

    private var isGood: Bool { manner == .good || manner == .halfCloses }

    private func addItems(_ isHostile: Bool) {
        for _ in 0...round.dice.roll(5) {
            if round.dice.once(in: 10) {
                items.append((.health, Array("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".utf8)))
                continue
            }
            let plan = round.makePlan(isHostile: isHostile)
            plan.isWatched = isGood
            items.append((.request(plan), plan.bytes))
            // Nothing can follow bytes that may already be a tunnel's.
            if plan.tunnel != nil || !plan.conduct.isGood && plan.upload != nil { break }
        }
        if case .request(let plan) = items[items.count - 1].item, plan.tunnel != nil { return }
        if isHostile, round.dice.once(in: 5) {
            items.append((.malformed, Plan.malformed(tag: round.forbiddenTag(), &round.dice)))
        }
    }

    // MARK: out

    private func sendOn() {
        while sent < items.count, !waits || sent == index {
            var bytes = items[sent].bytes
            if case .request(let plan) = items[sent].item, plan.tunnel != nil, plan.tunnel != .refused,
                plan.conduct.isGood
            {
                bytes += Mark.bytes("t", plan.tag, count: plan.tunnelBytes)
            }
            sent += 1
            if sent == items.count, manner == .truncates { bytes.removeLast(round.dice.roll(bytes.count)) }
            peer.send(round.dice.fewPieces(bytes))
        }
        guard sent == items.count, peer.ending == nil else { return }
        switch manner {
        case .halfCloses: peer.ending = .halfClosed
        case .closesWhenSent: peer.ending = .closed
        case .resetsWhenSent: peer.ending = .reset
        case .truncates: peer.ending = round.dice.pick([.halfClosed, .closed, .reset])
        case .good, .leavesEarly: break
        }
    }

    /// After it ended by itself.
    func look() {
        if peer.isClosed { isDone = true }
    }

    // MARK: in

    func read() {
        let bytes = peer.read()
        round.note("client", peer, peer.inputEnded ? "reads the end, reset \(peer.wasReset)" : "reads", bytes[...])
        reader.feed(bytes)
        while !isDone, !isLast, step() {}
        if isLast, !reader.isEmpty {
            round.complain("bytes after the last answer: \(Array(reader.rest.prefix(60)))", tag)
        }
        if manner == .leavesEarly, round.dice.once(in: 3) {
            peer.ending = round.dice.pick([.closed, .reset])
        }
        if peer.inputEnded, !isDone { ended() }
    }

    private var plan: Plan? {
        if index < items.count, case .request(let plan) = items[index].item { plan } else { nil }
    }

    private var tag: Int { plan?.tag ?? -1 }

    private func step() -> Bool {
        guard index < items.count else { return false }
        guard let head else { return takeHead() }
        if isTunnel { return tunnel() }
        let bytes = reader.body(&framing)
        if reader.isBroken { round.complain("a broken chunk reached the client", tag) }
        if head.tag != nil, !Mark.holds(bytes, "d", tag, at: received) {
            round.complain("foreign bytes in the answer", tag)
        }
        received += bytes.count
        guard framing == .done else { return false }
        whole(head)
        return true
    }

    private func takeHead() -> Bool {
        guard let head = reader.head() else { return false }
        let parts = head.line.split(separator: " ")
        guard parts.count > 1, parts[0] == "HTTP/1.1", let status = Int(parts[1]) else {
            round.complain("a first line that is none: \(head.line)", tag)
            return leave()
        }
        if head.tag != nil, head.tag != tag { round.complain("the answer to \(head.tag ?? -1)", tag) }
        if let interim = head.first("x-i"), Int(interim) != tag {
            round.complain("an interim answer to \(interim)", tag)
        }
        if status < 200, status != 101 {
            if plan?.isHTTP10 == true { round.complain("an interim answer for HTTP/1.0", tag) }
            return true
        }
        self.head = head
        self.status = status
        received = 0
        if head.tag == nil { judgeOwn(head) }
        if status == 101 {
            isTunnel = true
            if plan?.tunnel == nil { round.complain("an upgrade that was not asked for", tag) }
        }
        let isBodiless = plan?.isHead == true || status == 204 || status == 304
        if isBodiless {
            framing = .none
        } else if head.first("transfer-encoding") != nil {
            if plan?.isHTTP10 == true { round.complain("chunks for HTTP/1.0", tag) }
            framing = .size
        } else if let length = head.first("content-length").flatMap({ Int($0) }) {
            framing = .length(length)
        } else {
            framing = .untilClose
        }
        return true
    }

    /// An answer that no worker gave.
    private func judgeOwn(_ head: Head) {
        switch items[index].item {
        case .health: if status != 200 && status != 503 { round.complain("health said \(status)", tag) }
        case .malformed: if status < 400 { round.complain("a malformed request got \(status)", tag) }
        case .request(let plan):
            if status < 400 { round.complain("the front itself said \(status)", tag) }
            let isPermitted = status == 502 && !plan.canRetry || !isGood
            if round.isStrict, plan.conduct.isGood, !isPermitted {
                round.complain("a good worker, but \(head.line)", tag)
            }
        }
    }

    /// An answer is whole.
    private func whole(_ head: Head) {
        if let plan, head.tag != nil {
            let expected = plan.isHead || status == 204 ? 0 : plan.download
            let isCleanCut = framing == .done && plan.conduct.isCut && !plan.isHead
            if received != expected { round.complain("\(received) of \(expected) bytes", tag) }
            if isCleanCut, plan.conduct != .badChunk || received > 0 { round.complain("a cut answer ends well", tag) }
        }
        let isKept = plan?.isHTTP10 == true ? head.first("connection")?.lowercased() == "keep-alive" : true
        if head.first("connection")?.lowercased() == "close" || !isKept { isLast = true }
        if case .malformed = items[index].item { isLast = true }
        self.head = nil
        framing = .done
        index += 1
        if index == items.count, !isLast {
            _ = leave()
        } else if waits, !isLast {
            sendOn()
        }
    }

    private func leave() -> Bool {
        isDone = true
        peer.close()
        return false
    }

    private func tunnel() -> Bool {
        let bytes = Array(reader.rest)
        reader = Reader()
        if !Mark.holds(bytes, "d", tag, at: received) { round.complain("foreign bytes in the tunnel", tag) }
        received += bytes.count
        if let plan, plan.tunnel == .clientEnds, received == plan.tunnelBytes, peer.ending == nil {
            peer.ending = .halfClosed
        }
        return false
    }

    /// The front sends no more.
    private func ended() {
        if isTunnel, plan?.tunnel == .workerEnds, isGood, !peer.wasReset {
            // The other way is still open: it may be used to its end.
            judgeTunnel()
            peer.ending = .closed
            return
        }
        defer { _ = leave() }
        guard let plan, !isLast else { return }
        if isTunnel { return judgeTunnel() }
        if let head, framing == .untilClose, !peer.wasReset {
            framing = .done
            return whole(head)
        }
        let isPermitted = !plan.canRetry && head == nil || !isGood
        if round.isStrict, plan.conduct.isGood, !isPermitted {
            round.complain("closed after \(received) of \(plan.download) bytes, reset \(peer.wasReset)", tag)
        }
    }

    private func judgeTunnel() {
        guard let plan, round.isStrict, isGood, plan.tunnel != .workerResets, received != plan.tunnelBytes else {
            return
        }
        round.complain("\(received) of \(plan.tunnelBytes) bytes down the tunnel, reset \(peer.wasReset)", tag)
    }
}
