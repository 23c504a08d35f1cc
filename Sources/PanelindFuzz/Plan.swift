//  Plan.swift
//  One request of a round: its bytes, what the worker does with it, and what the client must see of that.
//  Every choice is the seed's. Read Material.swift and Reader.swift first.

/// What the worker does with a request.
enum Conduct: Hashable, CaseIterable {
    // Good ones: the client must get the whole answer.
    case length, chunked, untilClose, empty, interim, slow, stream, lastOne, early, large
    // Bad ones: the client must see that.
    case dies, diesInHead, diesInLength, diesInChunks, resets, resetsInBody, garbage, twoFramings, badChunk, silent
    // The answer is whole, what follows it is nobody's.
    case extra, earlyAndGone

    var isGood: Bool {
        switch self {
        case .length, .chunked, .untilClose, .empty, .interim, .slow, .stream, .lastOne, .early, .large, .extra: true
        case .dies, .diesInHead, .diesInLength, .diesInChunks, .resets, .resetsInBody, .garbage, .twoFramings,
            .badChunk,
            .silent, .earlyAndGone:
            false
        }
    }

    /// The answer can never be whole.
    var isCut: Bool {
        switch self {
        case .diesInLength, .diesInChunks, .resetsInBody, .badChunk: true
        default: false
        }
    }

    static let good: [Conduct] = [
        .length, .length, .chunked, .chunked, .untilClose, .empty, .interim, .slow, .stream, .lastOne, .early, .extra,
    ]
    static let bad: [Conduct] = [
        .dies, .diesInHead, .diesInLength, .diesInChunks, .resets, .resetsInBody, .garbage, .twoFramings, .badChunk,
        .earlyAndGone,
    ]
}

/// One request.
final class Plan {
    /// How its upgrade ends, once it is one.
    enum Tunnel: CaseIterable { case clientEnds, workerEnds, workerResets, refused }

    let tag: Int
    let method: String
    let isHTTP10: Bool
    let closes: Bool
    let expects: Bool
    /// Bytes of the body; nil for none.
    let upload: Int?
    let uploadInChunks: Bool
    let conduct: Conduct
    let download: Int
    let tunnel: Tunnel?
    /// Bytes each way in the tunnel.
    let tunnelBytes: Int
    let bytes: [UInt8]
    /// Its client keeps to the rules.
    var isWatched = false
    /// How often the worker got it.
    var seen = 0

    /// GET, HEAD or OPTIONS without a body.
    var canRetry: Bool { upload == nil && method != "POST" }
    var isHead: Bool { method == "HEAD" }

    init(tag: Int, dice: inout Dice, isHostile: Bool) {
        self.tag = tag
        isHTTP10 = dice.once(in: 10)
        let upgrades = !isHTTP10 && dice.once(in: 12)
        method = upgrades ? "GET" : dice.pick(["GET", "GET", "HEAD", "POST", "POST", "OPTIONS"])
        upload = method == "POST" ? dice.pick([0, 1, 100, 5000, 5000, 70_000, dice.once(in: 10) ? 400_000 : 10]) : nil
        uploadInChunks = !isHTTP10 && (upload ?? 0) > 0 && dice.once(in: 2)
        closes = dice.once(in: 12)
        expects = !isHTTP10 && (upload ?? 0) > 0 && dice.once(in: 5)
        let hasBadDay = isHostile && dice.once(in: 3)
        conduct =
            dice.once(in: 400) && isHostile ? .silent : hasBadDay ? dice.pick(Conduct.bad) : dice.pick(Conduct.good)
        download = dice.pick([1, 8, 100, 3000, 3000, 40_000, dice.once(in: 8) ? 600_000 : 20])
        tunnel = upgrades ? dice.pick(isHostile ? Tunnel.allCases : [.clientEnds, .workerEnds, .refused]) : nil
        tunnelBytes = dice.pick([0, 10, 5000, 200_000])
        bytes = Self.write(
            tag: tag, line: "\(method) /\(tag) HTTP/1.\(isHTTP10 ? 0 : 1)", keeps: isHTTP10 && !closes, closes: closes,
            expects: expects, upload: upload, inChunks: uploadInChunks, upgrades: upgrades, &dice)
    }

    private static func write(
        tag: Int, line: String, keeps: Bool, closes: Bool, expects: Bool, upload: Int?, inChunks: Bool, upgrades: Bool,
        _ dice: inout Dice
    ) -> [UInt8] {
        var head = "\(line)\r\nHost: x\r\nX-Tag: \(tag)\r\n"
        if keeps { head += "Connection: keep-alive\r\n" }
        if upgrades {
            head += "Connection: Upgrade\r\nUpgrade: fuzz\r\n"
        } else if closes {
            head += "Connection: close\r\n"
        }
        if expects { head += "Expect: 100-continue\r\n" }
        if dice.once(in: 3) { head += "TE: trailers\r\n" }
        if dice.once(in: 4) { head += "X-Pad: \(String(repeating: "p", count: dice.roll(3000)))\r\n" }
        guard let upload else { return Array((head + "\r\n").utf8) }
        let body = Mark.bytes("u", tag, count: upload)
        guard inChunks else { return Array((head + "Content-Length: \(upload)\r\n\r\n").utf8) + body }
        return Array((head + "Transfer-Encoding: chunked\r\n\r\n").utf8) + Self.chunks(body, &dice)
    }

    /// The body in chunks of any size.
    static func chunks(_ body: [UInt8], trailers: String = "", _ dice: inout Dice) -> [UInt8] {
        var out: [UInt8] = []
        for piece in dice.fewPieces(body) {
            out += Array("\(String(piece.count, radix: 16))\(dice.once(in: 5) ? ";x=y" : "")\r\n".utf8)
            out += piece
            out += [0x0d, 0x0a]
        }
        let sent = dice.once(in: 2) ? trailers : ""
        return out + Array("0\r\n\(sent)\r\n".utf8)
    }

    /// A request that must be refused, and must never reach the worker.
    static func malformed(tag: Int, _ dice: inout Dice) -> [UInt8] {
        let smuggled = "GET /\(tag) HTTP/1.1\r\nHost: x\r\nX-Tag: \(tag)\r\n"
        let post = "POST /\(tag) HTTP/1.1\r\nHost: x\r\nX-Tag: \(tag)\r\n"
        let raw = dice.pick([
            post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled + "\r\n",
            post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + smuggled + "\r\n",
            post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled + "\r\n",
            post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "GET /\(tag) HTTP/1.1\r\nX-Tag: \(tag)\r\n\r\n" + smuggled + "\r\n",
            "GET /\(tag) HTTP/1.1\nHost: x\nX-Tag: \(tag)\n\n",
            smuggled + "Host: y\r\n\r\n", smuggled + "X: a\r\n b\r\n\r\n", smuggled + "X: a\u{0}b\r\n\r\n",
            "CONNECT x:1 HTTP/1.1\r\nHost: x\r\nX-Tag: \(tag)\r\n\r\n" + smuggled + "\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", post + "Content-Length: 999999999\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n",
            smuggled + String(repeating: "X: y\r\n", count: 120) + "\r\n",
            smuggled + "X: \(String(repeating: "y", count: 70_000))\r\n\r\n",
        ])
        return Array(raw.utf8)
    }
}
