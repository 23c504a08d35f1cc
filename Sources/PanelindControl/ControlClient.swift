//  ControlClient.swift
//  The commands' side of the control socket: one request over a blocking unix socket, the answer as it comes.
//  Plain read and write, no event loop. Read before panelind/Control.swift.

import Glibc
import PanelindHTTP

/// Why a command has no answer.
public struct ControlClientError: Error, Hashable, CustomStringConvertible {
    /// A sentence: what failed, why, and what to do.
    public var description: String
}

/// One request to a running panelind.
public struct ControlClient: ~Copyable {
    /// What a panelind that runs needs at most for the head of an answer, in seconds; some answers wait for a worker.
    private static let patience = 10
    private static let silence =
        "panelind has been silent for \(patience)s: is it stopped (SIGSTOP), or does it hang? When it goes on, it does "
        + "what it was asked"

    private let descriptor: Int32
    /// The socket that answered.
    public let path: String
    private var buffer: [UInt8] = []
    private var hasAnswered = false
    private var isSilent = false

    /// Connects to the first of these sockets on which somebody accepts.
    ///
    /// Throws what stands in the way of each of them.
    public init(paths: [String]) throws(ControlClientError) { try self.init(paths: paths, patience: Self.patience) }

    private init(paths: [String], patience: Int) throws(ControlClientError) {
        var reasons: [String] = []
        for path in paths {
            let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else { continue }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            let bytes = Array(path.utf8)
            guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
                close(descriptor)
                reasons.append("\(path): the path is too long for a socket")
                continue
            }
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
            Self.limit(descriptor, patience)
            let result = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            if result == 0 {
                self.descriptor = descriptor
                self.path = path
                return
            }
            let why =
                switch errno {
                case ENOENT: "no such socket"
                case ECONNREFUSED where !Self.isSocket(path): "it is no socket"
                case ECONNREFUSED: "nobody accepts there (a socket left behind)"
                case EAGAIN: Self.silence
                case EACCES: "permission denied; it is for root and panelind's own user"
                default: "errno \(errno)"
                }
            close(descriptor)
            reasons.append("\(path): \(why)")
        }
        throw ControlClientError(
            description: "cannot reach panelind: "
                + (reasons.isEmpty
                    ? "it has no control socket (control.path is none)" : reasons.joined(separator: "; "))
                + "; is it running? --control PATH names its socket")
    }

    deinit { close(descriptor) }

    /// Sends one request and hands the body on piece by piece, as it comes.
    ///
    /// - Parameter onBody: only for a status of 200; false ends the answer early.
    /// - Returns: the status, and the whole body of any other status.
    public mutating func ask(
        method: String, target: String, accept: String, onBody: ([UInt8]) -> Bool
    ) throws(ControlClientError) -> (status: Int, body: [UInt8]) {
        let length = method == "POST" ? "Content-Length: 0\r\n" : ""
        try send(
            "\(method) \(target) HTTP/1.1\r\nHost: panelind\r\nAccept: \(accept)\r\n\(length)Connection: close\r\n\r\n")
        let head = try readHead()
        // What is followed may be silent for as long as nothing happens.
        Self.limit(descriptor, 0)
        guard let status = Int(head.first?.split(separator: " ").dropFirst().first ?? "") else {
            throw ControlClientError(description: "cannot understand the answer of \(path): is it panelind's socket?")
        }
        let isChunked = head.contains { $0.lowercased() == "transfer-encoding: chunked" }
        let size = head.lazy.compactMap { line -> Int? in
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].lowercased() == "content-length" else { return nil }
            return Int(parts[1].filter { $0 != " " })
        }.first
        var rest: [UInt8] = []
        func take(_ bytes: [UInt8]) -> Bool {
            if status == 200 { return onBody(bytes) }
            if rest.count < 1 << 20 { rest += bytes }
            return true
        }
        if isChunked {
            while let size = try readChunkSize(), size > 0 {
                let chunk = try readExactly(size)
                _ = try readExactly(2)
                if !take(chunk) { break }
            }
        } else if let size {
            if size > 0 { _ = take(try readExactly(size)) }
        } else {
            while !buffer.isEmpty || fill() {
                let bytes = buffer
                buffer = []
                if !take(bytes) { break }
            }
        }
        return (status, rest)
    }

    private func send(_ text: String) throws(ControlClientError) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let sent = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
            guard sent > 0 else { throw broken }
            bytes = bytes.dropFirst(sent)
        }
    }

    private var broken: ControlClientError {
        let why =
            isSilent
            ? Self.silence
            : "panelind closed the connection"
                + (hasAnswered ? "" : "; perhaps it has ended, or too many ask and follow already")
        return ControlClientError(description: "cannot read the answer of \(path): \(why)")
    }

    /// The lines of the head, without the empty one.
    private mutating func readHead() throws(ControlClientError) -> [String] {
        var lines: [String] = []
        while true {
            let line = try readLine()
            if line.isEmpty { return lines }
            lines.append(line)
            guard lines.count < 100 else { throw broken }
        }
    }

    private mutating func readLine() throws(ControlClientError) -> String {
        while true {
            if let end = buffer.firstIndex(of: 10) {
                var line = buffer[..<end]
                if line.last == 13 { line.removeLast() }
                let text = String(decoding: line, as: UTF8.self)
                buffer.removeFirst(end + 1)
                return text
            }
            guard buffer.count < 64 * 1024, fill() else { throw broken }
        }
    }

    private mutating func readChunkSize() throws(ControlClientError) -> Int? {
        let line = try readLine()
        guard let size = Int(line, radix: 16), size >= 0, size < 1 << 30 else { throw broken }
        return size
    }

    private mutating func readExactly(_ count: Int) throws(ControlClientError) -> [UInt8] {
        while buffer.count < count { guard fill() else { throw broken } }
        let bytes = Array(buffer[..<count])
        buffer.removeFirst(count)
        return bytes
    }

    /// Reads once; false at the end.
    private mutating func fill() -> Bool {
        let bytes = [UInt8](unsafeUninitializedCapacity: 65536) { room, count in
            func read(_ flags: CInt) -> (got: Int, error: CInt) {
                while true {
                    let got = recv(descriptor, room.baseAddress, 65536, flags)
                    let error = got < 0 ? errno : 0
                    if error != EINTR { return (got, error) }
                }
            }
            var (got, error) = read(0)
            // A command that waits for a worker has no answer yet; but panelind itself has one.
            while error == EAGAIN, !isSilent {
                isSilent = !answersOthers
                (got, error) = read(isSilent ? CInt(MSG_DONTWAIT) : 0)
            }
            count = max(0, got)
        }
        buffer += bytes
        if !bytes.isEmpty { hasAnswered = true }
        return !bytes.isEmpty
    }

    /// Another question is answered, or refused, within two seconds.
    private var answersOthers: Bool {
        let question = "GET /v1/status HTTP/1.1\r\nHost: panelind\r\nConnection: close\r\n\r\n"
        do throws(ControlClientError) {
            let other = try ControlClient(paths: [path], patience: 2)
            try other.send(question)
            var byte: UInt8 = 0
            return recv(other.descriptor, &byte, 1, 0) >= 0 || errno != EAGAIN
        } catch {
            return !error.description.has(Self.silence)
        }
    }

    /// Bounds each wait for this socket, in seconds; 0: none (SO_RCVTIMEO, SO_SNDTIMEO of socket(7)).
    private static func limit(_ descriptor: Int32, _ seconds: Int) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    private static func isSocket(_ path: String) -> Bool {
        var entry = stat()
        return stat(path, &entry) == 0 && entry.st_mode & S_IFMT == S_IFSOCK
    }
}

/// The `detail` of problem details (RFC 9457), or nil where there is none.
public func problemDetail(_ body: [UInt8]) -> String? {
    let text = String(decoding: body, as: UTF8.self)
    guard let start = text.range(of: "\"detail\":\"")?.upperBound else { return nil }
    var result = String.UnicodeScalarView()
    var scalars = text[start...].unicodeScalars.makeIterator()
    while let scalar = scalars.next(), scalar != "\"" {
        guard scalar == "\\" else {
            result.append(scalar)
            continue
        }
        switch scalars.next() {
        case "n": result.append("\n")
        case "r": result.append("\r")
        case "t": result.append("\t")
        case "u":
            var number: UInt32 = 0
            for _ in 0..<4 { number = number << 4 | (scalars.next().flatMap { UInt32(String($0), radix: 16) } ?? 0) }
            if let scalar = Unicode.Scalar(number) { result.append(scalar) }
        case let other?: result.append(other)
        case nil: break
        }
    }
    return String(result)
}
