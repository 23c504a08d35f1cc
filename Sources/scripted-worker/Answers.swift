//  Answers.swift
//  HTTP/1.1 as far as tests need it: a request out of bytes, and what each path answers.
//  Language.swift lists the paths; read Server.swift before it. RFC 9112 for the framing.

import Glibc

/// A request whose head has come.
struct Request {
    enum Body { case whole, more, wrong }
    private enum Framing { case length(Int), chunked, trailers }

    let method: String
    let path: String
    let query: [(name: String, value: String)]
    let head: [UInt8]
    let keepAlive: Bool
    let expectsContinue: Bool
    private var framing: Framing
    private(set) var body: [UInt8] = []
    private(set) var bodySize = 0

    /// Takes one head off the front; nil until it is whole. Nothing is checked that a test would not send on purpose.
    init?(_ input: inout [UInt8]) {
        guard let end = Self.find([13, 10, 13, 10], in: input) else { return nil }
        head = Array(input[..<(end + 2)])
        input.removeFirst(end + 4)
        let lines = String(decoding: head, as: UTF8.self).split(separator: "\r\n")
        let parts = (lines.first ?? "").split(separator: " ")
        method = parts.first.map(String.init) ?? "GET"
        let target = parts.count > 1 ? parts[1] : "/"
        let halves = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        path = String(halves[0])
        query = (halves.count > 1 ? halves[1] : "").split(separator: "&").map {
            let pair = $0.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (String(pair[0]), pair.count > 1 ? String(pair[1]) : "")
        }
        var fields: [String: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            fields[line[..<colon].lowercased()] = String(value)
        }
        let connection = fields["connection"]?.lowercased() ?? ""
        keepAlive = parts.last == "HTTP/1.1" ? connection != "close" : connection == "keep-alive"
        expectsContinue = fields["expect"]?.lowercased() == "100-continue"
        let chunked = fields["transfer-encoding"]?.lowercased() == "chunked"
        framing = chunked ? .chunked : .length(fields["content-length"].flatMap { Int($0) } ?? 0)
    }

    func number(_ name: String) -> Int? { query.first { $0.name == name }.flatMap { Int($0.value) } }

    /// Takes what has come of the body; only /echo and /do keep it, up to 64 MiB.
    mutating func takeBody(_ input: inout [UInt8]) -> Body {
        while true {
            switch framing {
            case .length(let left):
                let count = min(left, input.count)
                keep(input[..<count])
                input.removeFirst(count)
                framing = .length(left - count)
                return left == count ? .whole : .more
            case .chunked:
                guard let end = Self.find([13, 10], in: input) else { return .more }
                let digits = String(decoding: input[..<end], as: UTF8.self).prefix { $0 != ";" }
                guard let size = Int(digits, radix: 16), size >= 0, size < 1 << 40 else { return .wrong }
                if size == 0 {
                    input.removeFirst(end + 2)
                    framing = .trailers
                    continue
                }
                // Chunks as clients make them fit in memory; a test of huge bodies sends many.
                guard input.count >= end + 2 + size + 2 else { return .more }
                keep(input[(end + 2)..<(end + 2 + size)])
                input.removeFirst(end + 2 + size + 2)
            case .trailers:
                guard let end = Self.find([13, 10], in: input) else { return .more }
                input.removeFirst(end + 2)
                if end == 0 { return .whole }
            }
        }
    }

    private mutating func keep(_ bytes: ArraySlice<UInt8>) {
        bodySize += bytes.count
        if path == "/echo" || path == "/do", bodySize <= 64 << 20 { body += bytes }
    }

    private static func find(_ pattern: [UInt8], in bytes: [UInt8]) -> Int? {
        guard bytes.count >= pattern.count else { return nil }
        return (0...(bytes.count - pattern.count)).first { start in
            bytes[start] == pattern[0] && bytes[start..<(start + pattern.count)].elementsEqual(pattern)
        }
    }
}

/// An answer that is known whole.
struct Answer {
    var status = 200
    var body: [UInt8]
    var type = "text/plain"
    var keepAlive = true
    var withoutBody = false

    init(_ text: String, status: Int = 200) {
        self.status = status
        body = Array((text + "\n").utf8)
    }

    init(bytes: [UInt8]) {
        body = bytes
        type = "application/octet-stream"
    }
}

extension Connection {
    /// Answers at once, or leaves the duty to answer later or never.
    func answer(_ request: Request, server: Server, worker: Worker) {
        duty = .idle
        closesAfterwards = !request.keepAlive || server.draining
        var answer = Answer("scripted-worker \(getpid())")
        switch request.path {
        case "/", "/health": break
        case "/pid": answer = Answer("\(getpid())")
        case "/ready":
            switch server.health {
            case .code(let code): answer = Answer(code < 400 ? "ready" : "not ready", status: code)
            case .hang: return duty = .silent
            case .statusFile(let path):
                let text = String(decoding: contents(path) ?? [], as: UTF8.self)
                let code = Int(text.prefix { $0.isNumber }) ?? 503
                answer = Answer("\(path) says \(code)", status: code)
            }
        case "/status":
            guard let code = request.number("set"), (100...599).contains(code) else {
                answer = Answer("set=CODE is missing", status: 400)
                break
            }
            server.health = .code(code)
            answer = Answer("/ready is \(code) now")
        case "/answer": answer = Answer("as asked", status: request.number("status") ?? 200)
        case "/slow":
            answer = Answer("late")
            finish(&answer, request)
            return duty = .later(monotonic() + Nanoseconds(request.number("ms") ?? 1000) * 1_000_000, answer)
        case "/hang": return duty = .silent
        case "/env":
            let value = request.query.first.flatMap { environment($0.name) }
            answer = Answer(value ?? "unset", status: value == nil ? 404 : 200)
        case "/headers": answer = Answer(bytes: request.head)
        case "/echo": answer = Answer(bytes: request.body)
        case "/aborted": answer = Answer("\(server.aborted)")
        case "/count": answer = Answer("\(request.bodySize)")
        case "/crash":
            let name = request.query.first { $0.name == "signal" }?.value ?? "SEGV"
            worker.start([.signalSelf(Signals.number(name) ?? SIGSEGV)])
            return duty = .silent
        case "/exit":
            worker.start([.exit(Int32(truncatingIfNeeded: request.number("code") ?? 0))])
            return duty = .silent
        case "/do":
            do {
                let words = String(decoding: request.body, as: UTF8.self).split { $0 == " " || $0 == "\n" }
                worker.start(try Parser.script(words.map(String.init)).steps)
                answer = Answer("begun")
            } catch {
                answer = Answer("\(error)", status: 400)
            }
        case "/flood", "/stream", "/begin", "/upgrade": return begin(request)
        default: answer = Answer("no such path; `scripted-worker help` lists them", status: 404)
        }
        finish(&answer, request)
        reply(answer, server: server)
    }

    func reply(_ answer: Answer, server: Server) {
        duty = .idle
        closesAfterwards = closesAfterwards || server.draining
        output += Array("HTTP/1.1 \(answer.status) Scripted\r\nContent-Type: \(answer.type)\r\n".utf8)
        // 204 and 304 have no body whatever we say (RFC 9110 section 6.4.1).
        let bodiless = answer.status == 204 || answer.status == 304
        if !bodiless { output += Array("Content-Length: \(answer.body.count)\r\n".utf8) }
        output += Array((closesAfterwards ? "Connection: close\r\n\r\n" : "\r\n").utf8)
        if !answer.withoutBody && !bodiless { output += answer.body }
    }

    private func finish(_ answer: inout Answer, _ request: Request) {
        answer.withoutBody = request.method == "HEAD"
    }

    /// Answers that begin now and go on, or never end.
    private func begin(_ request: Request) {
        let connection = closesAfterwards ? "Connection: close\r\n" : ""
        let chunked = "HTTP/1.1 200 Scripted\r\nTransfer-Encoding: chunked\r\n\(connection)"
        switch request.path {
        case "/flood":
            let size = request.number("bytes")
            let framing = size.map { "HTTP/1.1 200 Scripted\r\n\(connection)Content-Length: \($0)\r\n\r\n" }
            output += Array((framing ?? chunked + "\r\n").utf8)
            duty = size == 0 ? .idle : .flood(left: size, line: 0)
        case "/stream":
            output += Array((chunked + "Content-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n").utf8)
            let period = Nanoseconds(request.number("ms") ?? 100) * 1_000_000
            duty = .stream(next: monotonic(), period: max(period, 1_000_000), sent: 0, of: request.number("n"))
        case "/begin":
            output += Array("HTTP/1.1 200 Scripted\r\n\(connection)Content-Length: 1000000\r\n\r\n".utf8)
            output += [UInt8](repeating: UInt8(ascii: "x"), count: request.number("bytes") ?? 10)
            duty = .silent
        default:
            output += Array("HTTP/1.1 101 Scripted\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".utf8)
            duty = .tunnel
        }
    }
}
