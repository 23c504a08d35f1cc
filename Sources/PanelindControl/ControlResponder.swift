//  ControlResponder.swift
//  /v1 of the control socket (CONTRACT section 9): routes, methods, parameters, problems.
//  Whoever is not root or panelind's user is refused. Read Query.swift, Follow.swift, PendingOperations.swift first.

import NIOCore
import NIOHTTP1
import PanelindCore
import PanelindHTTP

/// The responder of the control socket; on the main thread only.
public final class ControlResponder: Responder {
    private unowned let daemon: any ControlledDaemon
    private let room: ControlRoom
    private let users: [UInt32]
    private var eventStreams: [ObjectIdentifier: EventStream] = [:]
    private var lineStreams: [ObjectIdentifier: LineStream] = [:]
    /// What is asked from now on comes too late.
    private var isEnding = false

    /// Makes the responder; it follows the room from now on.
    ///
    /// - Parameter users: the user ids whose requests are answered.
    public init(_ daemon: any ControlledDaemon, _ room: ControlRoom, users: [UInt32]) {
        self.daemon = daemon
        self.room = room
        self.users = users
        room.events.onAppend = { [unowned self] in for stream in eventStreams.values { stream.send() } }
    }

    /// panelind ends now with this code: whoever waits is told so, streams end.
    public func end(code: Int32) {
        isEnding = true
        room.pending.end(code: code)
        // A stream's end begins the request that waits behind it: taken out before, so that nothing is changed midway.
        let streams = (eventStreams.values, lineStreams.values)
        eventStreams = [:]
        lineStreams = [:]
        for stream in streams.0 { stream.end() }
        for stream in streams.1 { stream.end() }
    }

    public func respond(to request: Request) -> Answer {
        guard let user = request.peerUser, users.contains(user) else {
            return problem(request, 403, "only root and panelind's own user may ask here")
        }
        if isEnding { return problem(request, 503, "panelind ends now") }
        do throws(Query.Refusal) {
            let query = Query(request.query)
            switch request.path {
            case "/v1/status":
                return read(request) { [room] facts in
                    let report = StatusReport(facts, room)
                    return (report.json, report.text)
                }
            case "/v1/why": return why(request)
            case "/v1/events":
                let after = try query.number("after", in: 0...UInt64(Int64.max))
                let seen = try lastSeen(request)
                return events(request, after: after ?? seen ?? 0, follow: try query.flag("follow"))
            case "/v1/logs":
                let count = try query.number("lines", in: 0...10_000) ?? 50
                return logs(request, count: Int(count), follow: try query.flag("follow"))
            case "/v1/restart": return operation(request, .restart)
            case "/v1/reload": return operation(request, .reload)
            case "/v1/stop": return operation(request, .stop)
            default:
                return problem(
                    request, 404,
                    "served here: /v1/status, /v1/why, /v1/events, /v1/logs, /v1/restart, /v1/reload, /v1/stop")
            }
        } catch {
            return problem(request, 400, error.detail)
        }
    }

    // MARK: questions

    private func read(_ request: Request, _ make: (Facts) -> (JSON, String)) -> Answer {
        guard request.isQuestion else { return wrongMethod(request, "GET, HEAD") }
        let (json, text) = make(daemon.facts)
        return .whole(whole(request, json, text))
    }

    private func why(_ request: Request) -> Answer {
        guard request.isQuestion else { return wrongMethod(request, "GET, HEAD") }
        return later { [unowned self] send in
            daemon.lines(Why.lines * 4, after: nil) { [unowned self] lines in
                let facts = daemon.facts
                let own = lines.filter { $0.generation == facts.serving }.map(\.text)
                let why = Why(facts, room, recent: own)
                send(whole(request, why.json(facts, nextStart: room.nextStart), why.text(wall: facts.wall)))
            }
        }
    }

    /// A browser that comes back says where it was (HTML, server-sent events).
    private func lastSeen(_ request: Request) throws(Query.Refusal) -> UInt64? {
        guard let text = request.head.headers.first(name: "Last-Event-ID"), !text.isEmpty else { return nil }
        return try Query.number(text, named: "Last-Event-ID", in: 0...UInt64(Int64.max))
    }

    private func events(_ request: Request, after: UInt64, follow: Bool) -> Answer {
        guard request.isQuestion else { return wrongMethod(request, "GET, HEAD") }
        guard follow else {
            let events = room.events.events(after: after)
            let json = JSON.object([
                JSON.Member("events", .array(events.map(\.json))), JSON.Member("last", .int(Int64(room.events.last))),
            ])
            let wall = daemon.facts.wall
            let text = events.map { "\(Times.local($0.time, now: wall))  \($0.message.withoutControls)\n" }.joined()
            return .whole(whole(request, json, text))
        }
        return .later { [unowned self] exchange in
            let id = ObjectIdentifier(exchange)
            eventStreams[id] = EventStream(exchange, room, after: after) { [unowned self] in eventStreams[id] = nil }
            if request.isHead { eventStreams.removeValue(forKey: id)?.end() }
        }
    }

    private func logs(_ request: Request, count: Int, follow: Bool) -> Answer {
        guard request.isQuestion else { return wrongMethod(request, "GET, HEAD") }
        guard follow, !request.isHead else {
            return later { [unowned self] send in
                daemon.lines(count, after: nil) { [unowned self] lines in
                    let json = JSON.object([JSON.Member("lines", .array(lines.map(\.json)))])
                    send(whole(request, json, lines.map { $0.text.withoutControls + "\n" }.joined()))
                }
            }
        }
        return .later { [unowned self] exchange in
            // Always one line at least, to know where to go on from.
            let question = daemon.lines(max(1, count), after: nil) { [unowned self] lines in
                guard !exchange.isEnded else { return }
                let id = ObjectIdentifier(exchange)
                lineStreams[id] = LineStream(
                    exchange, daemon, first: count == 0 ? [] : lines, after: lines.last?.sequence ?? 0,
                    isText: request.wantsText
                ) { [unowned self] in lineStreams[id] = nil }
            }
            exchange.onGone = { [unowned self] in daemon.cancelLines(question) }
        }
    }

    // MARK: operations

    private func operation(_ request: Request, _ kind: PendingOperations.Kind) -> Answer {
        guard request.method == .POST else { return wrongMethod(request, "POST") }
        return .later { [unowned self] exchange in
            let id = room.pending.add(kind, newest: daemon.facts.health.generation) { [unowned self] outcome in
                exchange.send(answer(request, outcome))
            }
            exchange.onGone = { [unowned self] in room.pending.remove(id) }
            switch kind {
            case .restart: daemon.restart()
            case .stop: daemon.stop()
            case .reload:
                guard let refusal = daemon.reload() else { return }
                room.pending.remove(id)
                exchange.send(answer(request, refusal))
            }
        }
    }

    private func answer(_ request: Request, _ refusal: ReloadRefusal) -> ByteBuffer {
        answer(
            request,
            Outcome(
                status: refusal.needsRestart ? 409 : 422,
                message: "nothing was changed: " + refusal.errors.joined(separator: "; "),
                members: [JSON.Member("errors", .strings(refusal.errors))]))
    }

    private func answer(_ request: Request, _ outcome: Outcome) -> ByteBuffer {
        if outcome.status == 200 {
            let json = JSON.object([JSON.Member("message", .string(outcome.message))] + outcome.members)
            return whole(request, json, outcome.message + "\n")
        }
        return problem(request, outcome)
    }

    // MARK: answers

    /// An answer that comes when the output thread has given its lines.
    private func later(_ ask: @escaping (@escaping (ByteBuffer) -> Void) -> Int) -> Answer {
        .later { [unowned self] exchange in
            let question = ask { exchange.send($0) }
            exchange.onGone = { [unowned self] in daemon.cancelLines(question) }
        }
    }

    private func whole(_ request: Request, _ json: JSON, _ text: String) -> ByteBuffer {
        AnswerText.whole(
            status: 200, contentType: request.wantsText ? "text/plain; charset=utf-8" : "application/json",
            fields: ["Cache-Control: no-store"], body: Array((request.wantsText ? text : json.text + "\n").utf8),
            headOnly: request.isHead, persistence: request.persistence)
    }

    private func wrongMethod(_ request: Request, _ allowed: String) -> Answer {
        problem(request, 405, "only \(allowed) here", fields: ["Allow: \(allowed)"])
    }

    private func problem(_ request: Request, _ status: Int, _ detail: String, fields: [String] = []) -> Answer {
        .whole(
            AnswerText.problem(
                status: status, detail: detail, fields: fields, headOnly: request.isHead,
                persistence: request.persistence))
    }

    /// Problem details with more members (RFC 9457 section 3.2).
    private func problem(_ request: Request, _ outcome: Outcome) -> ByteBuffer {
        let json = JSON.object(
            [
                JSON.Member("type", .string("about:blank")),
                JSON.Member("title", .string(AnswerText.reason(outcome.status))),
                JSON.Member("status", .int(Int64(outcome.status))), JSON.Member("detail", .string(outcome.message)),
            ] + outcome.members)
        return AnswerText.whole(
            status: outcome.status, contentType: "application/problem+json", fields: ["Cache-Control: no-store"],
            body: Array((json.text + "\n").utf8), persistence: request.persistence)
    }
}

extension Request {
    fileprivate var isQuestion: Bool { method == .GET || isHead }

    /// The client would rather have text than JSON: it says so first (RFC 9110 section 12.5.1).
    var wantsText: Bool { head.headers.first(name: "Accept")?.utf8.starts(with: "text/plain".utf8) ?? false }
}

extension HTTPLimits {
    /// The limits of the control socket: few clients, small requests, and a client that stops reading is dropped.
    public static var control: HTTPLimits {
        var limits = HTTPLimits()
        limits.share = 2
        limits.connections = 64
        limits.extraConnections = 8
        limits.bodyBytes = 64 * 1024
        limits.headBytes = 16 * 1024
        limits.targetBytes = 4 * 1024
        limits.idleTime = .seconds(60)
        limits.bodyTime = .seconds(10)
        limits.pipelined = 16
        return limits
    }
}
