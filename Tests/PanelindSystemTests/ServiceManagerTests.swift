//  ServiceManagerTests.swift
//  systemd's side of the wall: a datagram socket of the test's own takes the messages, variables are judged.
//  When what is said is the machine's affair, and Tests/EndToEnd/test_systemd_notify.py's.

import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

/// A receiver on this address, read without waiting.
private final class Receiver {
    let descriptor: Int32

    init(_ address: [UInt8]) {
        descriptor = socket(
            AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        #expect(SocketAddress.bind(descriptor, address))
    }

    deinit { close(descriptor) }

    func next() -> String? {
        var block = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &block, block.count, 0)
        return count < 0 ? nil : String(decoding: block[..<count], as: UTF8.self)
    }
}

@Suite("systemd")
struct ServiceManagerTests {
    private static func manager(_ path: String) -> ServiceManager? {
        ServiceManager(environment: ["NOTIFY_SOCKET": path])
    }

    // The library reads NOTIFY_SOCKET from the environment of the process, which tests share: this one alone sets it.
    @Test("a message arrives whole at a path and at an abstract name; a full queue is busy, and takes more when read")
    func messages() throws {
        let directory = try PrivateDirectory.make(access: .own).get()
        defer { directory.remove() }
        for path in [directory.path + "/notify", "@panelind-test-\(getpid())"] {
            setenv("NOTIFY_SOCKET", path, 1)
            defer { unsetenv("NOTIFY_SOCKET") }
            let receiver = Receiver(try #require(ServiceManager.address(path)))
            let manager = try #require(Self.manager(path))
            #expect(manager.send("READY=1\nSTATUS=a b") == .sent)
            #expect(receiver.next() == "READY=1\nSTATUS=a b")
            var count = 0
            while count < 10_000, manager.send("X=\(count)") == .sent { count += 1 }
            #expect(manager.send("Y=1") == .busy)
            for number in 0..<count { #expect(receiver.next() == "X=\(number)") }
            #expect(manager.send("Y=1") == .sent)
            #expect(receiver.next() == "Y=1")
        }
    }

    @Test("a receiver that is not there is named by the kernel's answer")
    func absent() throws {
        let directory = try PrivateDirectory.make(access: .own).get()
        defer { directory.remove() }
        let path = directory.path + "/nobody"
        #expect(try #require(Self.manager(path)).send("READY=1") == .failed("no such file (ENOENT)"))
        #expect(
            try #require(Self.manager("@panelind-nobody-\(getpid())")).send("READY=1")
                == .failed("connection refused (ECONNREFUSED)"))
        let long = try #require(Self.manager("/" + String(repeating: "x", count: 107)))
        #expect(long.send("READY=1") == .failed("its 108 bytes are more than the 107 of a socket"))
        #expect(Self.manager("") == nil && ServiceManager(environment: [:]) == nil)
    }

    @Test(
        "an abstract name is all of its bytes, and nothing else is an address",
        arguments: [("@a", 4), ("@" + String(repeating: "x", count: 107), 110), ("@", nil), ("x/y", nil)]
            as [(
                String, Int?
            )])
    func addresses(path: String, count: Int?) {
        #expect(ServiceManager.address(path)?.count == count)
    }

    @Test(
        "a watchdog that is not ours or no number is a warning",
        arguments: [
            (["WATCHDOG_USEC": "20000000"], 20.0, nil), ([:], nil, nil),
            (["WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"], 1e-6, nil),
            (["WATCHDOG_USEC": "5", "WATCHDOG_PID": "8"], nil, "meant for pid 8, and this is 7"),
            (["WATCHDOG_USEC": "5 s"], nil, "WATCHDOG_USEC=5 s: not a number"), (["WATCHDOG_USEC": ""], nil, "not a"),
            (["WATCHDOG_USEC": "0"], nil, "not a number"), (["WATCHDOG_USEC": "18446744073709551615"], nil, "not a"),
            (["WATCHDOG_USEC": "9000000000000000000"], nil, "not a number"),
        ] as [([String: String], Double?, String?)])
    func watchdog(environment: [String: String], seconds: Double?, warning: String?) {
        let request = WatchdogRequest(environment: environment, pid: 7)
        #expect(request.timeout == seconds.map { Duration.microseconds(Int64(($0 * 1e6).rounded())) })
        #expect((request.warning == nil) == (warning == nil))
        if let warning { #expect(request.warning?.contains(warning) == true, "\(request.warning ?? "")") }
    }

    @Test(
        "variables of passed sockets that are not ours or no number are a warning",
        arguments: [
            ([:], nil), (["LISTEN_FDS": "1", "LISTEN_PID": "7"], nil), (["LISTEN_FDS": "0", "LISTEN_PID": "7"], nil),
            (["LISTEN_FDS": "1", "LISTEN_PID": "8"], "meant for pid 8"), (["LISTEN_FDS": "1"], "LISTEN_PID does not"),
            (["LISTEN_FDS": "x", "LISTEN_PID": "7"], "LISTEN_FDS=x: not a number"),
            (["LISTEN_FDS": "1025", "LISTEN_PID": "7"], "LISTEN_FDS=1025"),
        ] as [([String: String], String?)])
    func sockets(environment: [String: String], warning: String?) {
        let problem = listenVariablesProblem(environment, pid: 7)
        #expect((problem == nil) == (warning == nil))
        if let warning { #expect(problem?.contains(warning) == true, "\(problem ?? "")") }
    }
}
