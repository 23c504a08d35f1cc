//  ListenerTests.swift
//  Listening sockets: bound, inherited, refused with the reason.
//  Loopback and free ports only.

import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

@Suite("listeners")
struct ListenerTests {
    private func connects(_ address: ListenAddress) -> Bool {
        let bytes: [UInt8]
        let family: Int32
        switch address {
        case .tcp(let host, let port):
            guard let found = SocketAddress.resolve(host: host, port: port) else { return false }
            (family, bytes) = found
        case .unix(let path):
            (family, bytes) = (AF_UNIX, SocketAddress.unix(path) ?? [])
        case .inherited: return false
        }
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        return SocketAddress.connect(descriptor, bytes)
    }

    private func option(_ descriptor: Int32, _ level: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1
        var length = socklen_t(4)
        getsockopt(descriptor, level, name, &value, &length)
        return value
    }

    @Test("port 0 gives a port, on which connections are taken")
    func tcp() throws {
        let listener = try Listener.open(.tcp(host: "127.0.0.1", port: 0)).get()
        guard case .tcp("127.0.0.1", let port) = listener.address else { throw Missing() }
        #expect(port != 0)
        #expect(connects(listener.address))
        #expect(option(listener.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY) == 1)
        #expect(fcntl(listener.descriptor, F_GETFD) & FD_CLOEXEC != 0)
        #expect(fcntl(listener.descriptor, F_GETFL) & O_NONBLOCK == 0)
        let copy = try listener.lend().get()
        listener.close()
        #expect(connects(.tcp(host: "127.0.0.1", port: port)))
        close(copy)
        #expect(!connects(.tcp(host: "127.0.0.1", port: port)))
    }

    @Test("[::] takes IPv4 too", .enabled(if: access("/proc/net/if_inet6", F_OK) == 0))
    func dualStack() throws {
        let listener = try Listener.open(.tcp(host: "::", port: 0), nonBlocking: true).get()
        guard case .tcp("::", let port) = listener.address else { throw Missing() }
        #expect("\(listener.address)" == "[::]:\(port)")
        #expect(connects(.tcp(host: "127.0.0.1", port: port)))
        #expect(connects(.tcp(host: "::1", port: port)))
        #expect(fcntl(listener.descriptor, F_GETFL) & O_NONBLOCK != 0)
    }

    @Test("a taken port is refused with the process that holds it")
    func taken() throws {
        let first = try Listener.open(.tcp(host: "127.0.0.1", port: 0)).get()
        guard case .failure(let error) = Listener.open(first.address) else { throw Missing() }
        #expect(error.error == SystemError(EADDRINUSE))
        let start = "cannot bind \(first.address): address already in use (EADDRINUSE)"
        // The holder is told best effort: another test's child may share the descriptor for a moment.
        #expect(error.description.hasPrefix(start + "; held by pid "))
    }

    @Test("an unknown host, a foreign address and a privileged path are refused with their reason")
    func refused() throws {
        guard case .failure(let foreign) = Listener.open(.tcp(host: "192.0.2.1", port: 0)) else { throw Missing() }
        #expect(foreign.description == "cannot bind 192.0.2.1:0: address not available on this machine (EADDRNOTAVAIL)")
        let long = "/tmp/" + String(repeating: "x", count: 120)
        guard case .failure(let path) = Listener.open(.unix(long)) else { throw Missing() }
        #expect(path.description.hasSuffix("a socket's path has 1 to 107 bytes, this one 125"))
        guard case .failure(let none) = Listener.open(.unix("/nonexistent/x.sock")) else { throw Missing() }
        #expect(none.error == SystemError(ENOENT))
    }

    @Test("a stale socket file is taken over, a living one and another file are refused, ours is removed at the end")
    func unix() throws {
        let directory = try PrivateDirectory.make().get()
        let path = directory.path + "/s"
        let first = try Listener.open(.unix(path), mode: 0o600).get()
        #expect(connects(.unix(path)))
        var status = stat()
        stat(path, &status)
        #expect(status.st_mode & 0o777 == 0o600)
        guard case .failure(let living) = Listener.open(.unix(path)) else { throw Missing() }
        #expect(living.description.hasSuffix("address already in use (EADDRINUSE); a living process accepts there"))
        first.close()
        #expect(access(path, F_OK) != 0)

        // Bound and gone without unlink, as after a crash.
        let stale = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        #expect(SocketAddress.bind(stale, try #require(SocketAddress.unix(path))))
        close(stale)
        let second = try Listener.open(.unix(path)).get()
        #expect(connects(.unix(path)))
        // Somebody else's file in its place is not ours to remove.
        unlink(path)
        _ = file(path, "x", 0o600)
        second.close()
        #expect(access(path, F_OK) == 0)
        guard case .failure(let other) = Listener.open(.unix(path)) else { throw Missing() }
        #expect(other.description == "cannot bind unix:\(path): the path exists and is not a socket (EEXIST)")
    }

    @Test("passed sockets are ours only with our pid, and only listening stream sockets")
    func inherited() throws {
        let me = "\(getpid())"
        let listener = try Listener.open(.tcp(host: "127.0.0.1", port: 0)).get()
        let first = fcntl(listener.descriptor, F_DUPFD_CLOEXEC, 600)
        #expect(try Inherited.sockets(count: nil, pid: me, names: nil).get().isEmpty)
        #expect(try Inherited.sockets(count: "1", pid: "1", names: nil).get().isEmpty)
        let found = try Inherited.sockets(count: "1", pid: me, names: "http:x", first: first).get()
        #expect(found == [Inherited(descriptor: first, name: "http", address: listener.address)])
        func refusal(_ count: String, _ first: Int32) -> String {
            guard case .failure(let error) = Inherited.sockets(count: count, pid: me, names: nil, first: first) else {
                return ""
            }
            return error.description
        }
        #expect(refusal("x", 3) == "cannot use the passed sockets: LISTEN_FDS=x is not a number from 0 to 1024")
        #expect(refusal("1", 19_999) == "cannot use the passed sockets: descriptor 19999 is not open")
        let plain = fcntl(0, F_DUPFD_CLOEXEC, 600)
        #expect(
            refusal("1", plain) == "cannot use the passed sockets: descriptor \(plain) is not a listening stream socket"
        )
        close(plain)
        close(first)
    }

    @Test("an inherited address takes the socket by its name")
    func inheritedByName() async {
        await #expect(processExitsWith: .success) {
            let listener = try Listener.open(.tcp(host: "127.0.0.1", port: 0)).get()
            #expect(dup2(listener.descriptor, 3) == 3)
            setenv("LISTEN_FDS", "1", 1)
            setenv("LISTEN_PID", "\(getpid())", 1)
            setenv("LISTEN_FDNAMES", "http", 1)
            let taken = try Listener.open(.inherited(name: "http"), nonBlocking: true).get()
            #expect(taken.isInherited && taken.address == listener.address)
            guard case .failure(let error) = Listener.open(.inherited(name: "web")) else { exit(1) }
            #expect(
                error.description == "cannot listen on systemd:web: no socket of that name was passed, only http")
        }
    }

    @Test("a free loopback port can be bound")
    func freePort() throws {
        let port = try Listener.freeLoopbackPort().get()
        #expect(port > 0)
        _ = try Listener.open(.tcp(host: "127.0.0.1", port: port)).get()
    }
}
