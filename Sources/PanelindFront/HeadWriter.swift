//  HeadWriter.swift
//  The head that is forwarded: what passes is copied in runs as it came, the rest is written anew (CONTRACT 5).
//  One buffer, sized before, filled by one cursor. Read RequestHead.swift and ResponseHead.swift first.

import NIOCore

/// Writes into memory that was sized before; the bounds are the caller's sum.
struct Cursor {
    private var next: UnsafeMutableRawPointer
    private let start: UnsafeMutableRawPointer
    private let room: Int

    init(_ memory: UnsafeMutableRawBufferPointer) {
        // An empty buffer is never asked for: every head has a first line.
        guard let base = memory.baseAddress else { preconditionFailure("no memory for a head") }
        next = base
        start = base
        room = memory.count
    }

    /// Bytes written.
    var count: Int { start.distance(to: next) }

    mutating func write(_ bytes: UnsafeRawBufferPointer) {
        precondition(count + bytes.count <= room, "a head is longer than its parts")
        if let base = bytes.baseAddress { next.copyMemory(from: base, byteCount: bytes.count) }
        next += bytes.count
    }

    mutating func write(_ text: StaticString) {
        write(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func write(decimal number: Int) {
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
            var left = number
            var first = 20
            repeat {
                first -= 1
                digits[first] = UInt8(left % 10) + 0x30
                left /= 10
            } while left > 0
            write(UnsafeRawBufferPointer(rebasing: digits[first...]))
        }
    }

    mutating func write(hex number: UInt64) {
        withUnsafeTemporaryAllocation(byteCount: 16, alignment: 1) { digits in
            for index in 0..<16 {
                let digit = UInt8(truncatingIfNeeded: number >> UInt64(60 - 4 * index)) & 15
                digits[index] = digit < 10 ? 0x30 + digit : 0x61 + digit - 10
            }
            write(UnsafeRawBufferPointer(digits))
        }
    }
}

/// What the front adds to a request.
struct Forwarding {
    /// The peer's address as text; empty for a unix socket.
    var peer: [UInt8] = []
    /// Its `X-Forwarded-Proto` and `-Host` are kept.
    var isTrusted = false
    /// For `X-Request-Id`, where there is none.
    var requestID: (UInt64, UInt64) = (0, 0)
}

extension RequestPlan {
    /// Writes the head for the worker, always as HTTP/1.1.
    func write(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines, _ forwarding: Forwarding, into buffer: inout ByteBuffer
    ) {
        let room = head.count + forwarding.peer.count + (lines.fields.count + 4) * 4 + 512 + hostLength(lines)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { memory in
            var out = Cursor(memory)
            out.write(UnsafeRawBufferPointer(rebasing: head[..<methodEnd]))
            out.write(" ")
            if let emptyPathMeans { out.write(emptyPathMeans) }
            out.write(UnsafeRawBufferPointer(rebasing: head[target]))
            out.write(" HTTP/1.1\r\n")
            writeFields(head, lines, forwarding, &out)
            out.write("\r\n")
            return out.count
        }
    }

    private func writeFields(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines, _ forwarding: Forwarding, _ out: inout Cursor
    ) {
        var run = Run()
        var host: UnsafeRawBufferPointer?
        var hasProto = false
        var hasHost = false
        var hasID = false
        var hasFor = false
        var hasOddLength = false
        for line in lines.fields {
            var passes = true
            switch line.name {
            case .other: passes = !namesFields || !isNamed(line, head, lines)
            case .contentType, .date, .trailer: break
            case .contentLength:
                passes = line.isPlainNumber(head)
                hasOddLength = !passes
            case .host: host = HeadLines.value(line, head)
            case .hopByHop, .connection, .transferEncoding, .te: passes = false
            case .upgrade: passes = asksUpgrade
            case .expect: passes = expectsContinue
            case .forwardedFor:
                hasFor = true
                passes = false
            case .forwardedProto:
                passes = forwarding.isTrusted
                hasProto = hasProto || passes
            case .forwardedHost:
                passes = forwarding.isTrusted
                hasHost = hasHost || passes
            case .requestID:
                passes = line.valueEnd > line.valueStart
                hasID = hasID || passes
            }
            run.take(line, passes, head, &out)
        }
        run.end(head, &out)
        if host == nil {
            host = UnsafeRawBufferPointer(rebasing: head[authority])
            out.write("Host: ")
            out.write(UnsafeRawBufferPointer(rebasing: head[authority]))
            out.write("\r\n")
        }
        if hasOddLength { out.writeLength(body) }
        if body == .chunked { out.write("Transfer-Encoding: chunked\r\n") }
        if wantsTrailers { out.write("TE: trailers\r\n") }
        if asksUpgrade { out.write("Connection: Upgrade\r\n") }
        writeForwardedFor(head, lines, forwarding.peer, hasFor, &out)
        if !hasProto { out.write("X-Forwarded-Proto: http\r\n") }
        if !hasHost, let host, !host.isEmpty {
            out.write("X-Forwarded-Host: ")
            out.write(host)
            out.write("\r\n")
        }
        if !hasID {
            out.write("X-Request-Id: ")
            out.write(hex: forwarding.requestID.0)
            out.write(hex: forwarding.requestID.1)
            out.write("\r\n")
        }
    }

    /// One line of all that came, and the peer behind it.
    private func writeForwardedFor(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines, _ peer: [UInt8], _ hasFor: Bool, _ out: inout Cursor
    ) {
        if !hasFor && peer.isEmpty { return }
        out.write("X-Forwarded-For: ")
        var isFirst = true
        if hasFor {
            for line in lines.fields where line.name == .forwardedFor && line.valueEnd > line.valueStart {
                if !isFirst { out.write(", ") }
                isFirst = false
                out.write(HeadLines.value(line, head))
            }
        }
        if !peer.isEmpty {
            if !isFirst { out.write(", ") }
            peer.withUnsafeBytes { out.write($0) }
        }
        out.write("\r\n")
    }

    /// Whether `Connection` names this field. Those that CONTRACT says pass untouched do.
    private func isNamed(_ line: FieldLine, _ head: UnsafeRawBufferPointer, _ lines: HeadLines) -> Bool {
        let name = HeadLines.name(line, head)
        for untouched: StaticString in [
            "authorization", "x-serverless-authorization", "traceparent", "x-cloud-trace-context",
        ] where FieldName.equals(name, untouched) {
            return false
        }
        return lines.isNamedByConnection(name, head)
    }

    /// The host is written twice where `X-Forwarded-Host` is not kept.
    private func hostLength(_ lines: HeadLines) -> Int {
        for line in lines.fields where line.name == .host { return Int(line.valueEnd - line.valueStart) }
        return authority.count
    }
}

/// How the answer's head agrees with the client and its connection.
struct AnswerShape {
    /// The body is sent in chunks.
    var chunked = false
    var persistence = ClientPersistence.keep
    /// Trailers are relayed, so `Trailer` is too.
    var trailers = false
    /// For an answer without a `Date` (RFC 9110 section 6.6.1); empty to leave it out.
    var date: [UInt8] = []

    /// What the answer says about the client's connection.
    enum ClientPersistence { case keep, keepAndSay, close, upgrade }
}

extension ResponsePlan {
    /// Writes the head for the client.
    func write(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines, _ shape: AnswerShape, into buffer: inout ByteBuffer
    ) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: head.count + 256) { memory in
            var out = Cursor(memory)
            out.write("HTTP/1.1")
            out.write(UnsafeRawBufferPointer(rebasing: head[8..<lines.startLineEnd]))
            // The space before an empty reason phrase is not optional (RFC 9112 section 4).
            out.write(lines.startLineEnd == 12 ? " \r\n" : "\r\n")
            var run = Run()
            var oddLength = false
            for line in lines.fields {
                var passes = true
                switch line.name {
                case .other:
                    passes = !namesFields || !lines.isNamedByConnection(HeadLines.name(line, head), head)
                case .contentType, .date, .host, .expect, .forwardedFor, .forwardedProto, .forwardedHost, .requestID:
                    break
                case .hopByHop, .connection, .transferEncoding, .te: passes = false
                case .trailer: passes = shape.trailers
                case .upgrade: passes = shape.persistence == .upgrade || status == 426
                case .contentLength:
                    passes = passesLength && line.isPlainNumber(head)
                    oddLength = passesLength && !passes
                }
                run.take(line, passes, head, &out)
            }
            run.end(head, &out)
            if oddLength { out.writeLength(announcedLength.map { .length($0) } ?? body) }
            if status == 205 { out.write("Content-Length: 0\r\n") }
            if shape.chunked { out.write("Transfer-Encoding: chunked\r\n") }
            switch shape.persistence {
            case .keep: break
            case .keepAndSay: out.write("Connection: keep-alive\r\n")
            case .close: out.write("Connection: close\r\n")
            case .upgrade: out.write("Connection: Upgrade\r\n")
            }
            if !hasDate, !isInterim, !shape.date.isEmpty {
                out.write("Date: ")
                shape.date.withUnsafeBytes { out.write($0) }
                out.write("\r\n")
            }
            out.write("\r\n")
            return out.count
        }
    }

    /// Not in 1xx, 204 and 205, which have none (RFC 9110 section 8.6).
    private var passesLength: Bool { status >= 200 && status != 204 && status != 205 }
}

extension FieldLine {
    /// A number as everybody writes it: without zeros before and a tab behind it, which not everybody reads alike.
    func isPlainNumber(_ head: UnsafeRawBufferPointer) -> Bool {
        let isPadded = valueEnd - valueStart > 1 && head[Int(valueStart)] == 0x30
        return !isPadded && valueEnd + 2 == end && valueStart - nameEnd <= 2 && head[Int(nameEnd) + 1] != 0x09
    }
}

extension Cursor {
    /// The length of a body that is not chunked, in the one way to write it.
    fileprivate mutating func writeLength(_ body: BodyFraming) {
        write("Content-Length: ")
        if case .length(let count) = body { write(decimal: count) } else { write("0") }
        write("\r\n")
    }
}

/// Fields that follow each other and all pass: copied at once.
private struct Run {
    private var start = 0
    private var end = 0

    mutating func take(_ line: FieldLine, _ passes: Bool, _ head: UnsafeRawBufferPointer, _ out: inout Cursor) {
        if passes, end == Int(line.start) {
            end = Int(line.end)
        } else {
            self.end(head, &out)
            if passes {
                start = Int(line.start)
                end = Int(line.end)
            }
        }
    }

    mutating func end(_ head: UnsafeRawBufferPointer, _ out: inout Cursor) {
        if end > start { out.write(UnsafeRawBufferPointer(rebasing: head[start..<end])) }
        start = 0
        end = 0
    }
}

extension HeadLines {
    /// Whether a `Connection` field names this one (RFC 9110 section 7.6.1).
    func isNamedByConnection(_ name: UnsafeRawBufferPointer, _ head: UnsafeRawBufferPointer) -> Bool {
        for line in fields where line.name == .connection {
            var found = false
            Bytes.forEachElement(HeadLines.value(line, head)) { if FieldName.equals($0, name) { found = true } }
            if found { return true }
        }
        return false
    }

    /// Writes the trailers that may be relayed, each with its line end (RFC 9110 section 6.5.1).
    func writeTrailers(_ section: UnsafeRawBufferPointer, into buffer: inout ByteBuffer) {
        for line in fields where !FieldName.isForbiddenInTrailers(HeadLines.name(line, section)) {
            buffer.writeBytes(UnsafeRawBufferPointer(rebasing: section[Int(line.start)..<Int(line.end)]))
        }
    }
}
