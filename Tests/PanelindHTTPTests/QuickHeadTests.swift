//  QuickHeadTests.swift
//  The quick path against its oracle: whatever it takes, NIO's decoder and the judge take too, with the same meaning.
//  Equipment.swift first.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import PanelindCore
import Testing

@testable import PanelindHTTP

/// Collects the decoder's parts.
private final class Parts: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    var heads: [HTTPRequestHead] = []
    var ends = 0
    var others = 0

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): heads.append(head)
        case .body: others += 1
        case .end: ends += 1
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { others += 1 }
}

private struct Seen: Equatable {
    let isHead: Bool
    let target: String
    let length: Int
}

private func quick(_ bytes: [UInt8]) -> Seen? {
    bytes.withUnsafeBytes { raw in
        QuickHead.match(raw).map {
            let target = String(decoding: $0.request.target, as: UTF8.self)
            return Seen(isHead: $0.request.isHead, target: target, length: $0.length)
        }
    }
}

private func disagreement(_ bytes: [UInt8]) -> String? {
    guard let seen = quick(bytes) else { return nil }
    let channel = EmbeddedChannel()
    let parts = Parts()
    let decoder = HTTPRequestDecoder(
        leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop,
        limitConfiguration: HTTPLimits().decoder)
    do {
        try channel.pipeline.syncOperations.addHandlers([ByteToMessageHandler(decoder), parts])
        try channel.writeInbound(ByteBuffer(bytes: bytes[..<seen.length]))
        guard parts.heads.count == 1, parts.ends == 1, parts.others == 0 else { return "the decoder disagrees" }
        let head = parts.heads[0]
        guard head.uri == seen.target, head.method == (seen.isHead ? .HEAD : .GET) else { return "another request" }
        let framing = try Framing.judge(head, targetBytes: 16384)
        return framing == RequestFraming() ? nil : "another framing: \(framing)"
    } catch {
        return "refused: \(error)"
    }
}

@Suite struct QuickHeadTests {
    @Test("the plainest requests are recognised")
    func plain() {
        let raw = "GET /health HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n"
        #expect(quick(Array(raw.utf8)) == Seen(isHead: false, target: "/health", length: raw.utf8.count))
        #expect(quick(Array((raw + raw).utf8))?.length == raw.utf8.count)
        let head = "HEAD /r?a=b HTTP/1.1\r\nConnection: Keep-Alive\r\nhost: [::1]:80\r\n\r\n"
        #expect(quick(Array(head.utf8)) == Seen(isHead: true, target: "/r?a=b", length: head.utf8.count))
    }

    @Test(
        "whatever is not plain is left to the decoder",
        arguments: [
            "GET /health HTTP/1.0\r\nHost: abcdefgh\r\n\r\n",
            "GET /health HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n",
            "POST /health HTTP/1.1\r\nHost: abcdefgh\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET /health HTTP/1.1\r\nA: bcdefghijk\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: abcdefgh\n\n", "GET /health HTTP/1.1\r\nHost: abcdefghijkl\r\n",
            "GET /he\u{e9}alth HTTP/1.1\r\nHost: abc\r\n\r\n", "GET /health HTTP/1.1\r\nHost : abcdef\r\n\r\n",
        ])
    func others(_ raw: String) { #expect(quick(Array(raw.utf8)) == nil) }

    @Test("no mutation of a request is taken that the decoder would refuse or read otherwise", arguments: 1...8)
    func mutations(_ seed: UInt64) {
        let seeds = [
            "GET /health HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: a/1 (b; c)\r\nAccept: */*\r\n\r\n",
            "HEAD /ready?x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTE: trailers\r\nX-A:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nExpect: x\r\n\r\na",
        ].map { Array($0.utf8) }
        let spice: [UInt8] = Array("\r\n \t:\0,/\u{7f}".utf8) + [0x80, 0xff] + Array("aZ0-_".utf8)
        var state = seed &* 0x9e37_79b9_7f4a_7c15
        func random(_ below: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % below
        }
        var taken = 0
        for _ in 0..<3000 {
            var bytes = seeds[random(seeds.count)]
            for _ in 0...random(3) {
                let at = random(bytes.count)
                switch random(4) {
                case 0: bytes[at] = spice[random(spice.count)]
                case 1: bytes.insert(spice[random(spice.count)], at: at)
                case 2: bytes.remove(at: at)
                default:
                    let other = seeds[random(seeds.count)]
                    bytes.insert(contentsOf: other[random(other.count)...].prefix(random(24)), at: at)
                }
            }
            if quick(bytes) != nil { taken += 1 }
            if let reason = disagreement(bytes) {
                Issue.record("\(reason): \(String(decoding: bytes, as: UTF8.self).debugDescription)")
            }
        }
        #expect(taken > 100)
    }

    @Test("quick and slow requests mix on one connection, in order")
    func mixed() throws {
        let connection = try EmbeddedConnection(responder: readySidecar())
        let quick = "GET /health HTTP/1.1\r\nHost: abcdefgh\r\n\r\n"
        let slow = "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        let output = connection.feed(quick + slow + quick + quick)
        #expect(EmbeddedConnection.statuses(output) == [200, 404, 200, 200])
        // After a body the decoder may hold the start of a head: the quick path must not overtake it.
        #expect(EmbeddedConnection.statuses(connection.feed(slow + "GET /no")) == [404])
        let rest = connection.feed("thing HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(EmbeddedConnection.statuses(rest) == [404])
        #expect(EmbeddedConnection.statuses(connection.feed(quick)) == [200])
        #expect(connection.isOpen)
    }
}
