//  Sidecars.swift
//  The health listener on an embedded loop: requests in random pieces, and in one.
//  Its quick path answers whole heads only, NIO's decoder the rest: both must say the same. Read Requests.swift first.

import NIOCore
import NIOEmbedded
import PanelindCore
import PanelindHTTP

/// Requests to the sidecar.
public final class SidecarTarget: FuzzTarget {
    public static let name = "sidecar"
    public static let words = OwnRequests.words

    private let sidecar: Sidecar

    public init() {
        let now = Instant.zero + .seconds(100)
        let board = HealthBoard(version: "1", revision: nil, startedAt: .zero, clock: { now })
        board.publish(HealthSnapshot(state: .ready, generation: 1, restarts: 0, retryAfter: .seconds(1)))
        sidecar = Sidecar(board: board)
        sidecar.metrics = { Page(contentType: "text/plain; version=0.0.4", body: Array("a 1\n".utf8)) }
    }

    public func make(_ dice: inout Dice) -> [UInt8] {
        OwnRequests.make(["/health", "/health", "/ready", "/metrics", "/", "/live", "/x", "http://x/health"], &dice)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        do {
            let whole = try answers(asRead([input[...]]))
            if let finding = OwnRequests.finding(whole, to: input, mayStream: false) { return finding }
            let pieces = asRead(dice.fewPieces(input))
            let split = try answers(pieces)
            // Whoever reads on behind a refusal may see the end of the connection sooner.
            return split == whole ? nil : "in \(pieces.map(\.count)) \(shown(split)), not \(shown(whole))"
        } catch {
            return "an error: \(error)"
        }
    }

    /// No more at once than a real socket gives.
    private func asRead(_ pieces: [ArraySlice<UInt8>]) -> [ArraySlice<UInt8>] {
        pieces.flatMap { piece in
            stride(from: piece.startIndex, to: piece.endIndex, by: 4096).map {
                piece[$0..<min($0 + 4096, piece.endIndex)]
            }
        }
    }

    private func answers(_ pieces: [ArraySlice<UInt8>]) throws -> [UInt8] {
        let channel = EmbeddedChannel()
        let server = HTTPServer(
            loop: channel.embeddedEventLoop, limits: .sidecar(besideFront: false), responder: sidecar)
        try server.setUp(channel)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        for piece in pieces where channel.isActive { _ = try? channel.writeInbound(ByteBuffer(bytes: piece)) }
        channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        channel.embeddedEventLoop.run()
        var output: [UInt8] = []
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { output += bytes.readableBytesView }
        _ = try? channel.finish(acceptAlreadyClosed: true)
        if server.openConnections != 0 { throw FuzzFailure("a connection is kept") }
        return output
    }
}
