//  Transaction+Tunnel.swift
//  After 101: bytes both ways, no meaning read into them, each side's end passed on (RFC 9110 section 7.8).
//  Read Transaction+Answer.swift first.

import NIOCore
import PanelindCore
import PanelindHTTP

extension Transaction {
    /// The worker agreed; its head is written. What came behind the heads already belongs to the tunnel.
    func startTunnel(_ connection: UpstreamConnection) {
        isTunnel = true
        isTouched = true
        var plan = ResponsePlan()
        plan.status = 101
        plan.keepsAlive = false
        answer = plan
        closesClient = true
        headGoesOut()
        connection.wait(.write)
        front.answered(id, .head(.tunnel))
        takeTunnelBytes(connection)
        takeClientTunnelBytes()
        if client.inputEnded { tunnelInputEnded(fromClient: true) }
        client.settle(active: true)
    }

    /// Bytes from the worker.
    func takeTunnelBytes(_ connection: UpstreamConnection) {
        guard connection.inbound.readableBytes > 0 else { return }
        responseBytes += connection.inbound.readableBytes
        client.write(connection.inbound)
        connection.inbound = ByteBuffer()
    }

    /// Bytes from the client.
    func takeClientTunnelBytes() {
        guard let upstream, client.inbound.readableBytes > 0 else { return }
        upstream.write(client.inbound)
        client.inbound = ByteBuffer()
        upstream.flush()
    }

    /// The client may send on.
    var tunnelTakesBytes: Bool { isTunnel && !isOver && upstream?.isWritable == true }

    /// One side sends no more. The other may, for a while.
    func tunnelInputEnded(fromClient: Bool) {
        guard !isOver else { return }
        tunnelEnds |= fromClient ? 1 : 2
        if tunnelEnds == 3 { return endTunnel(reset: false) }
        if fromClient { upstream?.closeOutput() } else { client.closeOutput() }
    }

    /// One side has ended and the other is quiet: nobody waits for ever.
    var isHalfTunnel: Bool { isTunnel && tunnelEnds != 0 }

    /// The tunnel is over.
    func endTunnel(reset: Bool) {
        guard !isOver else { return }
        if reset {
            endOnOwn(answering: nil, "")
        } else {
            finish()
        }
    }
}
