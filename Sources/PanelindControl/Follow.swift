//  Follow.swift
//  Streams that go on: events and lines as they come, to a client that takes them.
//  Nothing is kept for a client that is slow: it reads on from the rings, and is told what it missed.
//  Read EventLog.swift and PanelindHTTP/Exchange.swift first.

import NIOCore
import PanelindHTTP

/// One client that follows the events, as server-sent events.
final class EventStream {
    private let exchange: Exchange
    private let room: ControlRoom
    private var sent: UInt64
    private let leave: () -> Void

    /// - Parameter leave: called once when the client is gone.
    init(_ exchange: Exchange, _ room: ControlRoom, after: UInt64, leave: @escaping () -> Void) {
        self.exchange = exchange
        self.room = room
        self.leave = leave
        sent = after
        exchange.begin(status: 200, contentType: "text/event-stream", fields: ["Cache-Control: no-store"])
        // The head is out, and a proxy or client between sees that the stream lives.
        exchange.write(ByteBuffer(string: ": following\n\n"))
        exchange.onGone = { [unowned self] in self.leave() }
        exchange.onWritable = { [unowned self] in send() }
        send()
    }

    /// Sends what is new, as far as the client takes it.
    func send() {
        while exchange.isWritable {
            let events = room.events.events(after: sent, limit: 64)
            guard let first = events.first, let last = events.last else { return }
            var text = ""
            if first.id > sent + 1 { text += ": \(first.id - sent - 1) events were missed\n\n" }
            for event in events { text += "id: \(event.id)\nevent: \(event.name)\ndata: \(event.json.text)\n\n" }
            sent = last.id
            exchange.write(ByteBuffer(string: text))
        }
    }

    func end() { exchange.end() }
}

/// One client that follows the workers' lines: as server-sent events, or as plain text.
final class LineStream {
    /// Lines asked for at a time.
    static let batch = 500

    private let exchange: Exchange
    private weak var daemon: (any ControlledDaemon)?
    private let isText: Bool
    private var sent: UInt64
    private var question: Int?
    private let leave: () -> Void

    /// - Parameters:
    ///   - first: sent at once; what comes behind `after` follows.
    ///   - leave: called once when the client is gone.
    init(
        _ exchange: Exchange, _ daemon: any ControlledDaemon, first: [WorkerLine], after: UInt64, isText: Bool,
        leave: @escaping () -> Void
    ) {
        self.exchange = exchange
        self.daemon = daemon
        self.isText = isText
        self.leave = leave
        sent = after
        exchange.begin(
            status: 200, contentType: isText ? "text/plain; charset=utf-8" : "text/event-stream",
            fields: ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"])
        if !isText { exchange.write(ByteBuffer(string: ": following\n\n")) }
        exchange.onGone = { [unowned self] in
            cancel()
            self.leave()
        }
        exchange.onWritable = { [unowned self] in ask() }
        write(first, gap: 0)
        ask()
    }

    private func ask() {
        guard question == nil, exchange.isWritable else { return }
        question = daemon?.lines(Self.batch, after: sent) { [weak self] lines in
            guard let self else { return }
            question = nil
            let gap = lines.first.map { $0.sequence - sent - 1 } ?? 0
            if let last = lines.last { sent = last.sequence }
            write(lines, gap: gap)
            ask()
        }
    }

    private func write(_ lines: [WorkerLine], gap: UInt64) {
        guard !lines.isEmpty else { return }
        var text = ""
        if gap > 0 { text += isText ? "… \(gap) lines were missed\n" : ": \(gap) lines were missed\n\n" }
        for line in lines {
            text +=
                isText ? "\(line.text.withoutControls)\n" : "id: \(line.sequence)\ndata: \(line.json.text)\n\n"
        }
        exchange.write(ByteBuffer(string: text))
    }

    private func cancel() {
        if let question { daemon?.cancelLines(question) }
        question = nil
    }

    func end() {
        cancel()
        exchange.end()
    }
}
