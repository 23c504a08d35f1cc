//  Oracle.swift
//  A second opinion on request heads: NIO's decoder and the sidecar's judge, which share no line with the front's.
//  What both accept must mean the same; what only the front accepts needs a reason. Read Material.swift first.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import PanelindFront
import PanelindHTTP

/// What the two say of one head.
public enum Agreement: Hashable {
    case bothRefuse, bothAccept, bothWait
    /// The front is stricter: safe, named for the list.
    case frontRefuses(String)
    /// The front is less strict, for a reason that is known and harmless.
    case frontAccepts(String)
    /// They contradict each other.
    case conflict(String)
}

/// The oracle.
public enum Oracle {
    private enum Opinion {
        case more
        case refused(String)
        case accepted(HTTPRequestHead, RequestFraming)
    }

    /// Collects the first head.
    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        var head: HTTPRequestHead?
        var failure: (any Error)?

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            if head == nil, case .head(let head) = unwrapInboundIn(data) { self.head = head }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { failure = failure ?? error }
    }

    private static func opinion(_ bytes: [UInt8]) -> Opinion {
        let channel = EmbeddedChannel()
        let collector = Collector()
        let limits = HTTPLimits()
        let decoder = HTTPRequestDecoder(
            leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop, limitConfiguration: limits.decoder)
        do {
            try channel.pipeline.syncOperations.addHandlers([ByteToMessageHandler(decoder), collector])
            try channel.writeInbound(ByteBuffer(bytes: bytes))
        } catch {
            collector.failure = error
        }
        _ = try? channel.finish(acceptAlreadyClosed: true)
        guard let head = collector.head else {
            // The end of the input alone is no judgement of what came before it.
            if let failure = collector.failure as? HTTPParserError, failure != .invalidEOFState {
                return .refused("\(failure)")
            }
            return collector.failure is HTTPParserError || collector.failure == nil
                ? .more : .refused("\(collector.failure.map { "\($0)" } ?? "")")
        }
        do throws(HeadRefusal) {
            return .accepted(head, try Framing.judge(head, targetBytes: limits.targetBytes))
        } catch {
            return .refused("\(error.status) \(error.detail)")
        }
    }

    /// Compares.
    public static func compare(_ bytes: [UInt8]) -> Agreement {
        let front = Judging.request(bytes, trusted: false)
        switch (front, opinion(translated(bytes, front))) {
        case (.more, .more): return .bothWait
        case (.refused, .refused): return .bothRefuse
        case (.refused(let status, let why), .accepted): return .frontRefuses("\(status) \(why)")
        case (.refused(let status, let why), .more): return .frontRefuses("\(status) \(why), before it is whole")
        // llhttp judges as it goes; the front looks at whole heads.
        case (.more, .refused): return .bothWait
        case (.more, .accepted(let head, _)): return .conflict("the front waits for more of \(head)")
        case (.accepted(let mine), .more): return .conflict("the oracle waits for more of \(mine.count) bytes")
        case (.accepted(let mine), .refused(let why)):
            guard let reason = excuse(mine, why) else { return .conflict("the oracle alone refuses: \(why)") }
            return .frontAccepts(reason)
        case (.accepted(let mine), .accepted(let head, let framing)):
            return difference(mine, head, framing).map { .conflict($0) } ?? .bothAccept
        }
    }

    private static let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]

    /// llhttp has a list of methods, the front passes every token: any other is shown to the oracle as PATCH.
    private static func translated(_ bytes: [UInt8], _ front: Judging.Verdict<Judging.Request>) -> [UInt8] {
        guard case .accepted(let mine) = front, !known.contains(String(decoding: mine.method, as: UTF8.self)) else {
            return bytes
        }
        return Array("PATCH".utf8) + bytes.dropFirst(mine.method.count)
    }

    /// Why the front may accept what the oracle does not.
    private static func excuse(_ mine: Judging.Request, _ why: String) -> String? {
        if why.contains("URL"), mine.target.first != 0x2f, mine.target.first != 0x2a {
            return "an authority with bytes that llhttp refuses"
        }
        // RFC 9110 section 5.6.3: a tab is optional whitespace too.
        if why.contains("content-length") { return "a tab behind Content-Length" }
        return nil
    }

    /// What they read differently.
    private static func difference(
        _ mine: Judging.Request, _ head: HTTPRequestHead, _ framing: RequestFraming
    ) -> String? {
        let method = String(decoding: mine.method, as: UTF8.self)
        if head.method.rawValue != method, known.contains(method) { return "method \(head.method)" }
        if Array(head.uri.utf8) != mine.target { return "target \(head.uri)" }
        let body: Judging.Framing
        switch framing.body {
        case .none: body = .none
        case .length(let count): body = .length(count)
        case .chunked: body = .chunked
        }
        if body != mine.body { return "body \(body), not \(mine.body)" }
        if framing.keepsAlive != mine.keepsAlive { return "keepsAlive \(framing.keepsAlive)" }
        if framing.isHTTP10 != mine.isHTTP10 { return "version \(head.version)" }
        if framing.expectsContinue != mine.expectsContinue { return "expectsContinue \(framing.expectsContinue)" }
        // The front knows more reasons not to upgrade: a body, h2c, HTTP/1.0.
        if mine.asksUpgrade && !framing.asksUpgrade { return "an upgrade" }
        let fields = Array(head.headers)
        guard fields.count == mine.fields.count else { return "\(fields.count) fields, not \(mine.fields.count)" }
        for (theirs, ours) in zip(fields, mine.fields) {
            if !theirs.name.utf8.elementsEqual(ours.name) { return "field \(theirs.name)" }
            if ours.value.allSatisfy({ $0 < 0x80 }), trimmed(theirs.value) != ours.value {
                return "value of \(theirs.name)"
            }
        }
        return nil
    }

    private static func trimmed(_ text: String) -> [UInt8] {
        var bytes = Array(text.utf8)
        while let last = bytes.last, last == 0x20 || last == 0x09 { bytes.removeLast() }
        return bytes
    }
}
