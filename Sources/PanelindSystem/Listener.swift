//  Listener.swift
//  A listening socket as a descriptor: bound here or inherited, lent to HTTP or to the worker, opened by neither.
//  Read after ListenAddress.swift.

import Glibc
import PanelindCore

/// A listening stream socket; closed when it goes, and a path that it made is removed.
public final class Listener {
    /// The socket; `lend` gives copies away.
    public private(set) var descriptor: Int32
    /// Where it is bound: with the port that was taken, for port 0 too.
    public let address: ListenAddress
    /// Passed to us: the platform keeps it, and its path, after we are gone.
    public let isInherited: Bool
    /// The socket file that we made, so that nobody else's is removed.
    private var made: (path: String, device: UInt64, inode: UInt64)?

    private init(descriptor: Int32, address: ListenAddress, isInherited: Bool) {
        self.descriptor = descriptor
        self.address = address
        self.isInherited = isInherited
    }

    deinit { close() }

    /// The longest queue of connections that nobody accepted yet; the kernel bounds it by net.core.somaxconn.
    public static let backlog: Int32 = 4096

    /// Binds and listens, or takes the inherited socket.
    ///
    /// CLOEXEC, SO_REUSEADDR, TCP_NODELAY for what is accepted; `::` takes IPv4 too.
    /// - Parameters:
    ///   - nonBlocking: O_NONBLOCK of the file description; all who share the socket see it. Nil leaves an inherited
    ///     one as it came, a bound one is then blocking.
    ///   - mode: permissions of a unix socket's file; nil for the umask's.
    public static func open(
        _ address: ListenAddress, nonBlocking: Bool? = nil, mode: UInt32? = nil
    ) -> Result<Listener, ListenError> {
        switch address {
        case .tcp(let host, let port): openTCP(address, host, port, nonBlocking)
        case .unix(let path): openUnix(address, path, nonBlocking, mode)
        case .inherited(let name): openInherited(address, name, nonBlocking)
        }
    }

    /// A copy of the descriptor with CLOEXEC, for one who closes what it is given; EMFILE when none is free.
    public func lend() -> Result<Int32, SystemError> { Descriptors.duplicate(descriptor) }

    /// Stops listening here and removes the path that was made; copies go on.
    public func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
        if let made {
            var status = stat()
            if lstat(made.path, &status) == 0, UInt64(status.st_dev) == made.device, UInt64(status.st_ino) == made.inode
            {
                unlink(made.path)
            }
        }
        made = nil
    }

    /// A port of 127.0.0.1 that nobody uses at this moment; another may take it before the worker does.
    public static func freeLoopbackPort() -> Result<UInt16, ListenError> {
        switch open(.tcp(host: "127.0.0.1", port: 0)) {
        case .failure(let error): return .failure(error)
        case .success(let listener):
            guard case .tcp(_, let port) = listener.address else { return .success(0) }
            return .success(port)
        }
    }

    // MARK: the three kinds

    private static func openTCP(
        _ address: ListenAddress, _ host: String, _ port: UInt16, _ nonBlocking: Bool?
    ) -> Result<Listener, ListenError> {
        guard let (family, bytes) = SocketAddress.resolve(host: host, port: port) else {
            return .failure(ListenError(address, nil, "cannot bind \(address): host \"\(host)\" is not known"))
        }
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        if descriptor < 0 { return .failure(failure(address, .last)) }
        set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
        // Accepted connections inherit it (tcp(7)).
        set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        if family == AF_INET6 { set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, host == "::" ? 0 : 1) }
        guard SocketAddress.bind(descriptor, bytes), listen(descriptor, backlog) == 0 else {
            let error = SystemError.last
            Glibc.close(descriptor)
            return .failure(failure(address, error, error.number == EADDRINUSE ? PortHolder.words(port: port) : ""))
        }
        if nonBlocking == true { Descriptors.setNonBlocking(descriptor, true) }
        return .success(
            Listener(descriptor: descriptor, address: SocketAddress.local(descriptor) ?? address, isInherited: false))
    }

    private static func openUnix(
        _ address: ListenAddress, _ path: String, _ nonBlocking: Bool?, _ mode: UInt32?
    ) -> Result<Listener, ListenError> {
        guard let bytes = SocketAddress.unix(path) else {
            return .failure(
                ListenError(
                    address, SystemError(ENAMETOOLONG),
                    "cannot bind \(address): a socket's path has 1 to \(SocketAddress.pathLimit) bytes, this one "
                        + "\(path.utf8.count)"))
        }
        if let error = clearStale(address, path, bytes) { return .failure(error) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        if descriptor < 0 { return .failure(failure(address, .last)) }
        // By the umask the file has its mode from its first moment; a chmod of the path might follow a link that
        // somebody else has put there meanwhile.
        let before = mode.map { umask(~mode_t($0) & 0o777) }
        let isBound = SocketAddress.bind(descriptor, bytes)
        let error = SystemError.last
        if let before { umask(before) }
        guard isBound, listen(descriptor, backlog) == 0 else {
            let error = isBound ? SystemError.last : error
            Glibc.close(descriptor)
            if isBound { unlink(path) }
            return .failure(failure(address, error))
        }
        if nonBlocking == true { Descriptors.setNonBlocking(descriptor, true) }
        let listener = Listener(descriptor: descriptor, address: address, isInherited: false)
        var status = stat()
        if lstat(path, &status) == 0 { listener.made = (path, UInt64(status.st_dev), UInt64(status.st_ino)) }
        return .success(listener)
    }

    /// Removes a socket file that nobody accepts on; anything else is left and refused.
    private static func clearStale(_ address: ListenAddress, _ path: String, _ bytes: [UInt8]) -> ListenError? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            return ListenError(
                address, SystemError(EEXIST), "cannot bind \(address): the path exists and is not a socket (EEXIST)")
        }
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        if descriptor < 0 { return failure(address, .last) }
        defer { Glibc.close(descriptor) }
        if SocketAddress.connect(descriptor, bytes) || errno == EAGAIN || errno == EINPROGRESS {
            return failure(address, SystemError(EADDRINUSE), "; a living process accepts there")
        }
        let error = SystemError.last
        switch error.number {
        // Bound once, by nobody now. Between bind and listen of another it looks the same: two who start at once.
        case ECONNREFUSED: return unlink(path) == 0 || errno == ENOENT ? nil : failure(address, .last)
        case ENOENT: return nil
        case EPROTOTYPE: return failure(address, SystemError(EADDRINUSE), "; a socket of another type is there")
        default: return failure(address, error)
        }
    }

    private static func openInherited(
        _ address: ListenAddress, _ name: String?, _ nonBlocking: Bool?
    ) -> Result<Listener, ListenError> {
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        let all: [Inherited]
        switch Inherited.sockets(
            count: variable("LISTEN_FDS"), pid: variable("LISTEN_PID"), names: variable("LISTEN_FDNAMES"))
        {
        case .failure(let error): return .failure(error)
        case .success(let found): all = found
        }
        guard let chosen = name == nil ? all.first : all.first(where: { $0.name == name }) else {
            let names = all.map { $0.name.isEmpty ? "unnamed" : $0.name }.joined(separator: ", ")
            let why =
                all.isEmpty ? "no socket was passed (LISTEN_FDS)" : "no socket of that name was passed, only \(names)"
            return .failure(ListenError(address, nil, "cannot listen on \(address): \(why)"))
        }
        Descriptors.setCloseOnExec(chosen.descriptor, true)
        if let nonBlocking { Descriptors.setNonBlocking(chosen.descriptor, nonBlocking) }
        return .success(Listener(descriptor: chosen.descriptor, address: chosen.address, isInherited: true))
    }

    private static func failure(_ address: ListenAddress, _ error: SystemError, _ more: String = "") -> ListenError {
        ListenError(address, error, "cannot bind \(address): \(error)\(more)")
    }

    private static func set(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }
}

/// A listening socket that was passed to us (sd_listen_fds(3)).
public struct Inherited: Hashable, Sendable {
    public var descriptor: Int32
    /// From LISTEN_FDNAMES; empty where there is none.
    public var name: String
    /// Where it is bound.
    public var address: ListenAddress

    /// The sockets from these variables: none where they are not set or meant for another process.
    ///
    /// - Parameter first: the number of the first descriptor; 3 but in tests.
    /// - Returns: a failure for numbers that are no numbers, and descriptors that are not listening stream sockets.
    public static func sockets(
        count: String?, pid: String?, names: String?, first: Int32 = 3
    ) -> Result<[Inherited], ListenError> {
        guard let count, let pid, Int32(pid) == getpid() else { return .success([]) }
        func refuse(_ what: String) -> Result<[Inherited], ListenError> {
            .failure(ListenError(.inherited(name: nil), nil, "cannot use the passed sockets: \(what)"))
        }
        guard let number = Int32(count), (0...1024).contains(number) else {
            return refuse("LISTEN_FDS=\(count) is not a number from 0 to 1024")
        }
        let names = (names ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        var sockets: [Inherited] = []
        for index in 0..<number {
            let descriptor = first + index
            guard Descriptors.isOpen(descriptor) else { return refuse("descriptor \(descriptor) is not open") }
            guard option(descriptor, SO_TYPE) == Int32(SOCK_STREAM.rawValue), option(descriptor, SO_ACCEPTCONN) == 1,
                let address = SocketAddress.local(descriptor)
            else { return refuse("descriptor \(descriptor) is not a listening stream socket") }
            let name = names.indices.contains(Int(index)) ? names[Int(index)] : ""
            sockets.append(Inherited(descriptor: descriptor, name: name, address: address))
        }
        return .success(sockets)
    }

    private static func option(_ descriptor: Int32, _ option: Int32) -> Int32? {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(descriptor, SOL_SOCKET, option, &value, &length) == 0 ? value : nil
    }
}
