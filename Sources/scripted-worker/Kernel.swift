//  Kernel.swift
//  The few calls of the kernel that the rest needs, each with its error in words.
//  Read man 2 poll, man 7 unix beside it; nothing of ours before it.

import Glibc

/// CLOCK_MONOTONIC now.
func monotonic() -> Nanoseconds {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
}

/// errno in words, with its number.
func reason(_ number: Int32 = errno) -> String { "\(String(cString: strerror(number))) (errno \(number))" }

/// Writes all of it, waiting where the descriptor does not block; false if it cannot be written.
@discardableResult
func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
    var written = 0
    while written < bytes.count {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress.map { $0 + written }, $0.count - written) }
        if count >= 0 {
            written += count
        } else if errno == EAGAIN {
            // The shell's end may be non-blocking: its setting, not ours to change.
            var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            poll(&entry, 1, -1)
        } else if errno != EINTR {
            return false
        }
    }
    return true
}

/// One line on stderr.
func complain(_ text: String) { writeAll(2, Array("scripted-worker: \(text)\n".utf8)) }

/// A complaint and the end: what a worker does that cannot do its work.
func fail(_ text: String) -> Never {
    complain(text)
    exit(1)
}

func closeOnExec(_ descriptor: Int32) { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }

func nonBlocking(_ descriptor: Int32) { _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) }

/// The whole file, nil if it cannot be read; for files of /proc, whose size is unknown.
func contents(_ path: String) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16_384)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return count == 0 ? bytes : nil }
        bytes += buffer[..<count]
    }
}

/// Appends in one write, so that lines of several processes never mix.
func append(_ text: String, to path: String) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { return complain("cannot append to \(path): \(reason())") }
    writeAll(descriptor, Array(text.utf8))
    close(descriptor)
}

/// The value of a variable; nil if it is unset.
func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

/// The target of a symbolic link.
func target(of path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { raw in
        raw.withMemoryRebound(to: CChar.self) { memory in
            memory.baseAddress.map { readlink(path, $0, memory.count) } ?? -1
        }
    }
    return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
}

/// A socket of this family and kind, closed on exec.
func makeSocket(_ family: Int32, _ kind: __socket_type) -> Int32 {
    let descriptor = socket(family, Int32(kind.rawValue), 0)
    if descriptor < 0 { fail("cannot make a socket: \(reason())") }
    closeOnExec(descriptor)
    return descriptor
}

/// Calls with the address of a unix socket, `@NAME` being abstract; nil if the path does not fit 107 bytes.
func withUnixAddress<Result>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result? {
    var bytes = Array(path.utf8)
    guard bytes.count <= 107, let first = bytes.first else { return nil }
    let abstract = first == UInt8(ascii: "@")
    if abstract { bytes[0] = 0 }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    // An abstract name ends where the length says, a path at its NUL.
    let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (abstract ? 0 : 1))
    return withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
}

/// Sends to $NOTIFY_SOCKET (sd_notify(3)), with a descriptor if given; complains where it cannot.
func notify(_ text: String, passing descriptor: Int32? = nil) {
    guard let path = environment("NOTIFY_SOCKET") else {
        return complain("cannot notify \(text): NOTIFY_SOCKET is not set")
    }
    let socket = makeSocket(AF_UNIX, SOCK_DGRAM)
    defer { close(socket) }
    var payload = Array(text.utf8)
    // cmsghdr and one int, aligned as CMSG_SPACE does: 16 + 4, padded to 24.
    var control = [Int64](repeating: 0, count: 3)
    let sent = withUnixAddress(path) { address, length in
        control.withUnsafeMutableBytes { control in
            payload.withUnsafeMutableBytes { payload in
                var part = iovec(iov_base: payload.baseAddress, iov_len: payload.count)
                return withUnsafeMutablePointer(to: &part) { part in
                    var message = msghdr()
                    message.msg_name = UnsafeMutableRawPointer(mutating: address)
                    message.msg_namelen = length
                    message.msg_iov = part
                    message.msg_iovlen = 1
                    if let descriptor {
                        control.storeBytes(of: 20, toByteOffset: 0, as: Int.self)
                        control.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
                        // SCM_RIGHTS is 1; the header has it in an enum that is not imported.
                        control.storeBytes(of: 1, toByteOffset: 12, as: Int32.self)
                        control.storeBytes(of: descriptor, toByteOffset: 16, as: Int32.self)
                        message.msg_control = control.baseAddress
                        message.msg_controllen = control.count
                    }
                    return sendmsg(socket, &message, Int32(MSG_NOSIGNAL))
                }
            }
        }
    }
    if sent.map({ $0 < 0 }) ?? true { complain("cannot notify \(text) at \(path): \(reason())") }
}
