//  Peer.swift
//  One end of a connection that is played: what it sends leaves in pieces, at their times; then it ends as told.
//  Never blocks. Read before Client.swift and Worker.swift.

import Glibc

/// How a connection is ended by the one who plays it.
enum Ending: Hashable {
    /// Sends no more, still reads.
    case halfClosed
    case closed
    case reset
}

/// A played connection.
final class Peer {
    let descriptor: CInt
    private var pieces: [ArraySlice<UInt8>] = []
    private var next = 0
    /// Milliseconds between two pieces, and when the next may go.
    var pause: UInt64 = 0
    private(set) var notBefore: UInt64 = 0
    /// What happens when all is sent.
    var ending: Ending?
    /// It reads what comes.
    var isReading = true
    private(set) var inputEnded = false
    private(set) var wasReset = false
    private(set) var isClosed = false
    private var outputEnded = false

    init(descriptor: CInt) {
        self.descriptor = descriptor
        var on: CInt = 1
        _ = setsockopt(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }

    deinit { close() }

    /// Nothing waits to be sent.
    var isSent: Bool { next == pieces.count }

    func send(_ more: [ArraySlice<UInt8>]) {
        if isSent {
            pieces = []
            next = 0
        }
        pieces += more.filter { !$0.isEmpty }
    }

    func send(_ bytes: [UInt8]) { send([bytes[...]]) }

    /// What poll(2) should look for.
    func events(now: UInt64) -> Int16 {
        if isClosed { return 0 }
        let wantsOut =
            (!isSent && now >= notBefore) || (isSent && ending != nil && (!outputEnded || ending != .halfClosed))
        return (isReading && !inputEnded ? Int16(POLLIN) : 0) | (wantsOut ? Int16(POLLOUT) : 0)
    }

    /// Sends one piece, or ends.
    func sendOn(now: UInt64, tell: (String, ArraySlice<UInt8>) -> Void) {
        guard !isClosed, now >= notBefore else { return }
        if next < pieces.count {
            let piece = pieces[next]
            let count = piece.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
            if count < 0 {
                if errno == EAGAIN { return }
                // The other side is gone; what it said before may still be read.
                next = pieces.count
                tell("cannot send: errno \(errno)", [])
                if errno == ECONNRESET { wasReset = true }
                return
            }
            tell("sends", piece.prefix(count))
            if count == piece.count { next += 1 } else { pieces[next] = piece.dropFirst(count) }
            notBefore = now + pause
        }
        if isSent, let ending {
            tell("is \(ending)", [])
            end(ending)
        }
    }

    private func end(_ ending: Ending) {
        switch ending {
        case .halfClosed:
            if !outputEnded { shutdown(descriptor, CInt(SHUT_WR)) }
            outputEnded = true
            if inputEnded { close() }
        case .closed: close()
        case .reset:
            var value = linger(l_onoff: 1, l_linger: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
            close()
        }
    }

    func close() {
        if isClosed { return }
        isClosed = true
        Glibc.close(descriptor)
    }

    /// What came; empty at the end.
    func read() -> [UInt8] {
        if isClosed || inputEnded { return [] }
        return [UInt8](unsafeUninitializedCapacity: 65_536) { buffer, count in
            let got = recv(descriptor, buffer.baseAddress, buffer.count, 0)
            count = max(0, got)
            if got > 0 || got < 0 && errno == EAGAIN { return }
            inputEnded = true
            if got < 0 { wasReset = true }
            if outputEnded { close() }
        }
    }
}

/// A descriptor of a private unix socket that listens, and its path.
final class PrivateListener {
    let descriptor: CInt
    let path: String

    init() throws {
        var template = Array("/tmp/panelind-fuzz-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FuzzFailure("cannot make a directory: errno \(errno)") }
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        path = directory + "/s"
        descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard bound == 0, listen(descriptor, 512) == 0 else { throw FuzzFailure("cannot listen: errno \(errno)") }
    }

    deinit {
        close(descriptor)
        unlink(path)
        rmdir(String(path.dropLast(2)))
    }

    /// A connection that waits, or nil.
    func accept() -> Peer? {
        let accepted = Glibc.accept(descriptor, nil, nil)
        return accepted >= 0 ? Peer(descriptor: accepted) : nil
    }
}

extension Peer {
    /// A connection to loopback, under way.
    static func connect(port: Int) throws -> Peer {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let code = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard code == 0 else { throw FuzzFailure("cannot connect: errno \(errno)") }
        return Peer(descriptor: descriptor)
    }
}
