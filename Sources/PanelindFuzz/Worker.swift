//  Worker.swift
//  The hostile worker: one connection of the front to it, obeying the plan of each request that comes.
//  It complains of whatever a worker should never see. Read Plan.swift first.

/// One connection that the front made.
final class WorkerConnection {
    let peer: Peer
    private unowned let round: Round
    private var reader = Reader()
    private var plan: Plan?
    private var framing = Reader.Framing.done
    private var uploaded = 0
    private var hasAnswered = false
    private var isTunnel = false
    private var tunnelled = 0

    init(_ peer: Peer, _ round: Round) {
        self.peer = peer
        self.round = round
    }

    func read() {
        let bytes = peer.read()
        round.note("worker", peer, peer.inputEnded ? "reads the end, reset \(peer.wasReset)" : "reads", bytes[...])
        reader.feed(bytes)
        if isTunnel { return echo() }
        while !peer.isClosed, step() {}
        if peer.inputEnded, !isTunnel, peer.ending == nil { peer.ending = .closed }
    }

    /// Takes one thing off what came; false where more is needed.
    private func step() -> Bool {
        guard let plan else { return takeHead() }
        let bytes = reader.body(&framing)
        if reader.isBroken { round.complain("a broken chunk reached the worker", plan.tag) }
        if !Mark.holds(bytes, "u", plan.tag, at: uploaded) { round.complain("foreign bytes in the request", plan.tag) }
        uploaded += bytes.count
        guard framing == .done else { return false }
        if uploaded != plan.upload ?? 0 { round.complain("\(uploaded) bytes in the request", plan.tag) }
        answer(plan)
        if isTunnel {
            echo()
            return false
        }
        if !reader.isEmpty, !peer.isSent { round.complain("a second request before the answer is sent", plan.tag) }
        self.plan = nil
        return peer.ending == nil
    }

    private func takeHead() -> Bool {
        guard let head = reader.head() else { return false }
        let tag = head.tag ?? -1
        guard let plan = round.plans[tag], head.all("x-tag").count == 1 else {
            round.complain("a request that nobody may have made: \(head.line)", tag)
            peer.ending = .closed
            return false
        }
        plan.seen += 1
        if plan.seen > (plan.canRetry ? 4 : 1) { round.complain("made \(plan.seen) times", tag) }
        if head.line != "\(plan.method) /\(tag) HTTP/1.1" { round.complain("first line \(head.line)", tag) }
        check(head, plan)
        self.plan = plan
        uploaded = 0
        hasAnswered = false
        if head.first("transfer-encoding") == "chunked" {
            framing = .size
        } else if let length = head.first("content-length").flatMap({ Int($0) }) {
            framing = .length(length)
        } else {
            framing = .none
        }
        if plan.expects, round.dice.once(in: 2), plan.conduct != .early {
            peer.send(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
        }
        // These do not wait for the body.
        switch plan.conduct {
        case .early, .earlyAndGone, .dies, .resets: answer(plan)
        default: break
        }
        return true
    }

    private func check(_ head: Head, _ plan: Plan) {
        for name in ["host", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
        where head.all(name).count != 1 { round.complain("\(head.all(name).count) of \(name)", plan.tag) }
        for name in ["keep-alive", "proxy", "x-named"] where head.first(name) != nil {
            round.complain("\(name) reached the worker", plan.tag)
        }
        if (head.first("connection") != nil) != (plan.tunnel != nil) { round.complain("Connection is wrong", plan.tag) }
        let framings = head.all("content-length").count + head.all("transfer-encoding").count
        if framings != (plan.upload == nil ? 0 : 1) { round.complain("\(framings) framings", plan.tag) }
    }

    // MARK: answers

    private func answer(_ plan: Plan) {
        if hasAnswered { return }
        hasAnswered = true
        peer.pause = plan.conduct == .slow ? 3 : 0
        if let tunnel = plan.tunnel, tunnel != .refused, plan.conduct.isGood { return startTunnel(tunnel, plan) }
        let (bytes, ending) = write(plan)
        peer.send(plan.conduct == .slow ? round.dice.fewPieces(bytes) : [bytes[...]])
        peer.ending = ending
    }

    /// The whole answer, or as much of it as there will ever be.
    private func write(_ plan: Plan) -> (bytes: [UInt8], ending: Ending?) {
        var dice = round.dice
        defer { round.dice = dice }
        let status = plan.tunnel == .refused ? "403 No" : "200 OK"
        let tag = "X-Tag: \(plan.tag)\r\n"
        let start = "HTTP/1.1 \(status)\r\n\(tag)"
        let body = plan.isHead ? [] : Mark.bytes("d", plan.tag, count: plan.download)
        let length = "Content-Length: \(plan.download)\r\n"
        let whole = Array("\(start)\(length)\r\n".utf8) + body
        func chunked(_ fields: String) -> [UInt8] {
            let head = Array("\(start)\(fields)Transfer-Encoding: chunked\r\n\r\n".utf8)
            return plan.isHead ? head : head + Plan.chunks(body, trailers: "X-T: \(plan.tag)\r\n", &dice)
        }
        func part(_ bytes: [UInt8]) -> [UInt8] {
            Array(bytes.dropLast(1 + dice.roll(max(1, min(bytes.count, body.count)))))
        }
        let gone: Ending = dice.once(in: 2) ? .closed : .reset
        switch plan.conduct {
        case .length, .large, .early, .slow: return (whole, dice.once(in: 10) ? .closed : nil)
        case .chunked: return (chunked(""), dice.once(in: 10) ? .closed : nil)
        case .untilClose: return (Array("\(start)\r\n".utf8) + body, .closed)
        case .empty: return (Array("HTTP/1.1 204 No\r\n\(tag)\r\n".utf8), nil)
        case .interim:
            return (Array("HTTP/1.1 103 Hints\r\nX-I: \(plan.tag)\r\n\r\nHTTP/1.1 102 P\r\n\r\n".utf8) + whole, nil)
        case .stream: return (chunked("Content-Type: text/event-stream\r\n"), nil)
        case .lastOne: return (Array("\(start)\(length)Connection: close\r\n\r\n".utf8) + body, .closed)
        case .extra: return (whole + Array("HTTP/1.1 200 OK\r\nX-Tag: 99999\r\nContent-Length: 0\r\n\r\n".utf8), nil)
        case .earlyAndGone: return (whole, .closed)
        case .dies: return ([], .closed)
        case .resets: return ([], .reset)
        case .diesInHead: return (Array(whole.prefix(1 + dice.roll(30))), gone)
        case .diesInLength, .resetsInBody: return (plan.isHead ? Array(start.utf8) : part(whole), gone)
        case .diesInChunks: return (plan.isHead ? Array(start.utf8) : part(chunked("")), gone)
        case .garbage:
            return (
                dice.pick([
                    Array("\u{16}\u{3}garbage\r\n\r\n".utf8), Array("HTTP/1.1 2x0 OK\r\n\r\n".utf8),
                    Array("SSH-2.0-x\n".utf8),
                ]), nil
            )
        case .twoFramings: return (chunked(length), nil)
        case .badChunk:
            // Five bytes are announced, six come.
            let chunk = Array("5\r\n".utf8) + Mark.bytes("d", plan.tag, count: 6) + [0x0d, 0x0a]
            return (
                Array("\(start)Transfer-Encoding: chunked\r\n\r\n".utf8) + (plan.isHead ? [] : chunk),
                plan.isHead ? .closed : nil
            )
        case .silent: return ([], nil)
        }
    }

    // MARK: tunnels

    private func startTunnel(_ tunnel: Plan.Tunnel, _ plan: Plan) {
        isTunnel = true
        peer.send(
            Array("HTTP/1.1 101 Switching\r\nX-Tag: \(plan.tag)\r\nConnection: Upgrade\r\nUpgrade: fuzz\r\n\r\n".utf8)
                + Mark.bytes("d", plan.tag, count: plan.tunnelBytes))
        switch tunnel {
        case .workerEnds: peer.ending = .halfClosed
        case .workerResets: peer.ending = .reset
        case .clientEnds, .refused: break
        }
    }

    private func echo() {
        guard let plan else { return }
        let bytes = Array(reader.rest)
        reader = Reader()
        if !Mark.holds(bytes, "t", plan.tag, at: tunnelled) { round.complain("foreign bytes in the tunnel", plan.tag) }
        tunnelled += bytes.count
        guard peer.inputEnded else { return }
        if !peer.wasReset, plan.tunnel != .workerResets, round.isStrict, tunnelled != plan.tunnelBytes, plan.isWatched {
            round.complain("\(tunnelled) of \(plan.tunnelBytes) bytes through the tunnel", plan.tag)
        }
        if peer.ending == nil || peer.ending == .halfClosed { peer.ending = .closed }
    }
}
