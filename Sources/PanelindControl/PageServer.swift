//  PageServer.swift
//  `/` and `/live` of the sidecar: to this machine only, asked by a name of this machine only.
//  Live pages are drawn anew at most twice a second, for all who look at once; while nobody looks nothing happens.
//  Read StatusPage.swift first.

import NIOCore
import NIOHTTP1
import PanelindCore
import PanelindHTTP

/// Serves the status page; on the main thread only.
public final class PageServer {
    /// Live pages at a time.
    static let mostViewers = 16
    /// Between two drawings, and the longest time without one while somebody looks: ages and rates move on.
    static let shortest: Duration = .milliseconds(500)
    static let longest: Duration = .seconds(5)

    private unowned let daemon: any ControlledDaemon
    private let room: ControlRoom
    private let after: (Duration, @escaping () -> Void) -> () -> Void
    private var viewers: [ObjectIdentifier: Exchange] = [:]
    private var cancelTimer: (() -> Void)?
    private var isSoon = false
    private var question: Int?

    /// Makes the server.
    ///
    /// - Parameter after: runs a body on the main thread after a time; the closure it returns cancels that.
    public init(
        _ daemon: any ControlledDaemon, _ room: ControlRoom,
        after: @escaping (Duration, @escaping () -> Void) -> () -> Void
    ) {
        self.daemon = daemon
        self.room = room
        self.after = after
    }

    /// Answers a request for `/` or `/live`.
    public func respond(to request: Request) -> Answer {
        guard request.isFromLoopback else {
            return problem(request, 403, "the status page is shown to this machine only")
        }
        guard Self.namesThisMachine(request.head.headers.first(name: "Host") ?? "") else {
            // A page of another site, whose name was made to point here (DNS rebinding).
            return problem(request, 403, "ask for the status page as localhost, 127.0.0.1 or [::1]")
        }
        guard request.method == .GET || request.isHead else {
            return problem(request, 405, "only GET and HEAD", fields: ["Allow: GET, HEAD"])
        }
        return request.path == "/live" ? live(request) : page(request)
    }

    private func page(_ request: Request) -> Answer {
        .later { [unowned self] exchange in
            let question = daemon.lines(StatusPage.shownLines, after: nil) { [unowned self] lines in
                var random = SystemRandomNumberGenerator()
                let nonce = String(random.next(), radix: 36) + String(random.next(), radix: 36)
                let page = StatusPage(facts: daemon.facts, room: room, lines: lines)
                exchange.send(
                    AnswerText.whole(
                        status: 200, contentType: "text/html; charset=utf-8", fields: Self.fields(nonce),
                        body: Array(page.document(nonce: nonce).utf8), headOnly: request.isHead,
                        persistence: request.persistence))
            }
            exchange.onGone = { [unowned self] in daemon.cancelLines(question) }
        }
    }

    private static func fields(_ nonce: String) -> [String] {
        [
            "Cache-Control: no-store",
            "Content-Security-Policy: default-src 'none'; style-src 'nonce-\(nonce)'; script-src 'nonce-\(nonce)'; "
                + "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer",
            "Cross-Origin-Resource-Policy: same-origin",
        ]
    }

    /// The Host of a browser that was sent here by its user: an address of loopback, or localhost.
    package static func namesThisMachine(_ host: String) -> Bool {
        var name = Substring(host.lowercased())
        if name.hasPrefix("["), let end = name.firstIndex(of: "]") {
            name = name[name.index(after: name.startIndex)..<end]
            return name == "::1" || name.hasPrefix("::ffff:127.")
        }
        if let colon = name.lastIndex(of: ":") { name = name[..<colon] }
        if name == "localhost" || name.hasSuffix(".localhost") { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        // Digits only: `+1` is a number for UInt8, and a name for a browser.
        return parts.count == 4 && parts[0] == "127"
            && parts.allSatisfy { part in UInt8(part) != nil && part.utf8.allSatisfy { (48...57).contains($0) } }
    }

    // MARK: live

    private func live(_ request: Request) -> Answer {
        guard viewers.count < Self.mostViewers else {
            return problem(request, 503, "\(viewers.count) live pages are open already", fields: ["Retry-After: 10"])
        }
        return .later { [unowned self] exchange in
            exchange.begin(
                status: 200, contentType: "text/event-stream",
                fields: ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"])
            guard !request.isHead else { return exchange.end() }
            let id = ObjectIdentifier(exchange)
            viewers[id] = exchange
            exchange.onGone = { [unowned self] in
                viewers[id] = nil
                if viewers.isEmpty { rest() }
            }
            exchange.write(ByteBuffer(string: "retry: 2000\n\n"))
            room.onNews[ObjectIdentifier(self)] = { [unowned self] in drawSoon() }
            drawSoon()
        }
    }

    /// Nobody looks any more.
    private func rest() {
        room.onNews[ObjectIdentifier(self)] = nil
        cancelTimer?()
        cancelTimer = nil
        isSoon = false
        if let question { daemon.cancelLines(question) }
        question = nil
    }

    private func drawSoon() {
        guard !isSoon, !viewers.isEmpty else { return }
        isSoon = true
        arm(Self.shortest)
    }

    private func arm(_ time: Duration) {
        cancelTimer?()
        cancelTimer = after(time) { [unowned self] in
            cancelTimer = nil
            draw()
        }
    }

    private func draw() {
        if let question { daemon.cancelLines(question) }
        question = daemon.lines(StatusPage.shownLines, after: nil) { [unowned self] lines in
            question = nil
            isSoon = false
            let page = StatusPage(facts: daemon.facts, room: room, lines: lines)
            let event = ByteBuffer(string: "data: \(JSON.string(page.main).text)\n\n")
            // One that is slow misses this drawing, not the next.
            for viewer in viewers.values where viewer.isWritable { viewer.write(event) }
            guard !viewers.isEmpty else { return }
            arm(Self.longest)
            question = daemon.lines(1, after: lines.last?.sequence ?? 0) { [unowned self] _ in
                question = nil
                drawSoon()
            }
        }
    }

    private func problem(_ request: Request, _ status: Int, _ detail: String, fields: [String] = []) -> Answer {
        .whole(
            AnswerText.problem(
                status: status, detail: detail, fields: fields, headOnly: request.isHead,
                persistence: request.persistence))
    }
}
