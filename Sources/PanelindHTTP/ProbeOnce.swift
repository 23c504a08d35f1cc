//  ProbeOnce.swift
//  `panelind probe URL`: one GET with plain sockets and poll(2), names resolved, no event loop to start.
//  The same judgement as the daemon's probes. Read AnswerHead.swift and ProbeTarget.swift first.

import Glibc
import NIOCore
import PanelindCore

/// What `panelind probe` found.
public enum ProbeVerdict: Hashable, Sendable {
    /// 200...399.
    case passed(Int)
    /// Anything else, in one line for stderr.
    case failed(String)
    /// The URL cannot be probed, in one line for stderr.
    case usage(String)

    /// The exit code of CONTRACT section 1 and 3: 0, 1 or 64.
    public var exitCode: Int32 {
        switch self {
        case .passed: 0
        case .failed: 1
        case .usage: 64
        }
    }

    /// The line for stderr; nil where there is nothing to say.
    public var message: String? {
        switch self {
        case .passed: nil
        case .failed(let text), .usage(let text): text
        }
    }
}

/// Asks once and blocks until the verdict.
///
/// - Parameters:
///   - url: `http://HOST[:PORT][/PATH]` or `unix:SOCKET:/PATH`.
///   - timeout: for connecting, asking and the head of the answer together; the resolver has its own.
/// - Source: getaddrinfo(3), connect(2), poll(2).
public func probeOnce(url: String, timeout: Duration, version: String) -> ProbeVerdict {
    let parts: ProbeURL
    let target: ProbeTarget
    do {
        parts = try ProbeURL(url)
        switch parts.place {
        case .unix(let socket): target = try .http(unix: socket, path: parts.path)
        case .tcp(let host, let port):
            // Checks path and port, and needs no resolver for a number.
            let checked = try ProbeTarget.http(host: "127.0.0.1", port: port, path: parts.path)
            let addresses = resolve(host, port)
            if addresses.isEmpty { return .failed("cannot probe \(url): no address for \(host)") }
            guard case .get(let path, _, let below) = checked.question else { return .failed("no question") }
            let name = host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]" : host
            target = ProbeTarget(
                addresses: addresses,
                question: .get(path: path, host: port == 80 ? name : "\(name):\(port)", passesBelow500: below))
        }
    } catch {
        return .usage(error.description)
    }
    let asker = BlockingAsker(deadline: BlockingAsker.now + timeout, timeout: timeout)
    var reason = "no address"
    for address in target.addresses {
        switch asker.ask(address, request: Array(target.request(version: version).readableBytesView)) {
        case .status(let status) where target.passes(status): return .passed(status)
        case .status(let status): return .failed("cannot pass \(url): HTTP \(status)")
        case .failed(let text, let isFinal):
            reason = text
            if isFinal { return .failed("cannot probe \(url): \(text)") }
        }
    }
    return .failed("cannot probe \(url): \(reason)")
}

/// All addresses of a host, in the resolver's order.
private func resolve(_ host: String, _ port: Int) -> [SocketAddress] {
    if let address = try? SocketAddress(ipAddress: host, port: port) { return [address] }
    var hints = addrinfo()
    hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, "\(port)", &hints, &list) == 0, let first = list else { return [] }
    defer { freeaddrinfo(first) }
    var addresses: [SocketAddress] = []
    var entry: UnsafeMutablePointer<addrinfo>? = first
    while let one = entry {
        if let raw = UnsafeRawPointer(one.pointee.ai_addr) {
            switch one.pointee.ai_family {
            case AF_INET: addresses.append(SocketAddress(raw.load(as: sockaddr_in.self)))
            case AF_INET6: addresses.append(SocketAddress(raw.load(as: sockaddr_in6.self)))
            default: break
            }
        }
        entry = one.pointee.ai_next
    }
    return addresses
}

/// One question over a non-blocking socket, with poll(2) up to a deadline.
private struct BlockingAsker {
    enum Result {
        case status(Int)
        /// Final: another address would not help.
        case failed(String, isFinal: Bool)
    }

    let deadline: Instant
    let timeout: Duration

    static var now: Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    private var late: Result { .failed("timed out after \(timeout.text)", isFinal: true) }

    func ask(_ address: SocketAddress, request: [UInt8]) -> Result {
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(family(address), kind, 0)
        guard descriptor >= 0 else { return .failed(ProbeErrors.text(errno), isFinal: false) }
        defer { close(descriptor) }
        let connected = address.withSockAddr { pointer, size in connect(descriptor, pointer, socklen_t(size)) }
        if connected != 0 {
            guard errno == EINPROGRESS else { return .failed(ProbeErrors.text(errno), isFinal: false) }
            guard wait(descriptor, POLLOUT) else { return late }
            var code: CInt = 0
            var size = socklen_t(MemoryLayout<CInt>.size)
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &size)
            if code != 0 { return .failed(ProbeErrors.text(code), isFinal: false) }
        }
        // A few hundred bytes into an empty socket buffer: one send takes them all.
        let sent = send(descriptor, request, request.count, CInt(MSG_NOSIGNAL))
        guard sent == request.count else { return .failed(ProbeErrors.text(errno), isFinal: true) }
        var head = AnswerHead()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while wait(descriptor, POLLIN) {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 {
                if errno == EAGAIN || errno == EINTR { continue }
                return .failed(ProbeErrors.text(errno), isFinal: true)
            }
            if count == 0 {
                return .failed(head.isEmpty ? "closed without an answer" : "invalid answer", isFinal: true)
            }
            switch head.take(buffer[..<count]) {
            case .more: continue
            case .status(let status): return .status(status)
            case .invalid: return .failed("invalid answer", isFinal: true)
            }
        }
        return late
    }

    private func family(_ address: SocketAddress) -> CInt {
        switch address {
        case .v4: AF_INET
        case .v6: AF_INET6
        case .unixDomainSocket: AF_UNIX
        }
    }

    /// False at the deadline.
    private func wait(_ descriptor: CInt, _ events: CInt) -> Bool {
        while true {
            let left = (deadline - Self.now).nanoseconds
            guard left > 0 else { return false }
            var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            let milliseconds = CInt(min(60_000, (left + 999_999) / 1_000_000))
            if poll(&entry, 1, milliseconds) > 0 { return true }
        }
    }
}
