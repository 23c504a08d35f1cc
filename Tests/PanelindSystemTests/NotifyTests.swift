//  NotifyTests.swift
//  The worker's notify socket: who says what, and what is dropped.
//  Real senders; python sends descriptors along.

import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

/// Sends one datagram from this process.
private func send(_ bytes: [UInt8], to path: String) -> Bool {
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    guard let address = SocketAddress.unix(path), SocketAddress.connect(descriptor, address) else { return false }
    return Glibc.send(descriptor, bytes, bytes.count, 0) == bytes.count
}

@Suite("the notify socket")
struct NotifyTests {
    @Test("messages come with their sender and in order; the cut and the garbled are dropped and counted")
    func messages() throws {
        let socket = try NotifySocket()
        #expect(send(Array("READY=1\nSTATUS=a=b\nnonsense\n=x\nMAINPID=7\0".utf8), to: socket.path))
        #expect(send([0x53, 0x3D, 0xFF, 0xFE], to: socket.path))
        #expect(send([0x53, 0x3D, 0x00, 0x41], to: socket.path))
        #expect(send([UInt8](repeating: 0x41, count: NotifySocket.limit + 1), to: socket.path))
        #expect(send(Array("STOPPING=1".utf8), to: socket.path))
        #expect(Descriptors.waitReadable(socket.descriptor, for: .seconds(10)))
        let messages = socket.receive()
        #expect(messages.count == 2 && socket.droppedTotal == 3)
        #expect(messages.allSatisfy { $0.pid == getpid() && $0.uid == getuid() })
        let first = try #require(messages.first)
        #expect(first.assignments == [.init("READY", "1"), .init("STATUS", "a=b"), .init("MAINPID", "7")])
        #expect(first["STATUS"] == "a=b" && first["WATCHDOG"] == nil)
        #expect(socket.receive().isEmpty)
    }

    @Test("lines end at LF and CR, whatever joins them to one character")
    func lineEnds() {
        func parsed(_ text: String) -> [NotifyMessage.Assignment]? { NotifySocket.parse(Array(text.utf8)[...]) }
        #expect(parsed("STATUS=a\r\nREADY=1\r\n") == [.init("STATUS", "a"), .init("READY", "1")])
        #expect(parsed("STATUS=\u{301}x\nREADY=1") == [.init("STATUS", "\u{301}x"), .init("READY", "1")])
        #expect(parsed("STATUS=a\r\nREADY=1\r\n")?.compactMap(\.meaning) == [.news(.status("a")), .news(.ready)])
    }

    @Test("what is asked is bounded; what is no number asks nothing")
    func meanings() {
        func meaning(_ key: String, _ value: String) -> NotifyMessage.Assignment.Meaning? {
            NotifyMessage.Assignment(key, value).meaning
        }
        #expect(meaning("EXTEND_TIMEOUT_USEC", "9223372036854775807") == .news(.extendTimeout(.seconds(3600))))
        #expect(meaning("MAINPID", "12") == .mainPID(12))
        for (key, value) in [
            ("EXTEND_TIMEOUT_USEC", "9223372036854775808"), ("EXTEND_TIMEOUT_USEC", "-1"), ("MAINPID", "0"),
            ("MAINPID", "4294967297"), ("READY", "0"), ("READY", "1 "), ("BARRIER", "1"), ("ready", "1"),
        ] { #expect(meaning(key, value) == nil) }
    }

    @Test("a flood is taken in bounded portions")
    func flood() throws {
        let socket = try NotifySocket()
        let descriptor = Glibc.socket(
            AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        #expect(SocketAddress.connect(descriptor, try #require(SocketAddress.unix(socket.path))))
        var sent = 0
        var received = 0
        while sent < NotifySocket.bound * 3 {
            if Glibc.send(descriptor, "READY=1", 7, 0) == 7 {
                sent += 1
            } else {
                let count = socket.receive().count
                #expect(count <= NotifySocket.bound)
                received += count
            }
        }
        while case let count = socket.receive().count, count > 0 { received += count }
        #expect(received == sent)
    }

    @Test("the socket and its directory go with their owner, or when they are told to")
    func removal() throws {
        var path = ""
        let early = try NotifySocket()
        early.remove()
        #expect(access(early.path, F_OK) != 0)
        do {
            let socket = try NotifySocket()
            path = socket.path
            #expect(access(path, F_OK) == 0)
        }
        #expect(access(path, F_OK) != 0)
    }

    @Test("a worker's message is told from a stranger's, and BARRIER is answered by closing", .enabled(if: hasPython))
    func workerAndStranger() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let socket = try NotifySocket()
            let output = try Output()
            let script = """
                import os, select, socket
                s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                s.connect(os.environ["NOTIFY_SOCKET"])
                s.send(b"READY=1")
                r, w = os.pipe()
                socket.send_fds(s, [b"BARRIER=1"], [w])
                os.close(w)
                os.read(r, 1)
                print("answered", flush=True)
                os.read(0, 1)
                """
            var request = pythonScript(script, output: output.writing)
            request.setEnvironment("NOTIFY_SOCKET", socket.path)
            let worker = try children.spawn(request, role: .worker(g1)).get()
            #expect(send(Array("READY=1".utf8), to: socket.path))
            var messages: [NotifyMessage] = []
            while messages.count < 3 {
                try #require(Descriptors.waitReadable(socket.descriptor, for: .seconds(10)))
                messages += socket.receive()
            }
            #expect(try output.line() == "answered")
            #expect(messages.filter { $0.pid == worker }.map { $0.assignments[0].key } == ["READY", "BARRIER"])
            for message in messages {
                #expect(children.owner(of: message.pid) == (message.pid == getpid() ? nil : g1))
            }
            _ = children.clear(g1)
        }
    }

    @Test("a worker of another user reaches a shared socket", .enabled(if: isRoot && hasPython))
    func otherUser() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let shared = try NotifySocket(sharedWithOtherUsers: true)
            let own = try NotifySocket()
            let output = try Output()
            let script = """
                import os, socket
                def tell(path):
                    try:
                        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                        s.connect(path)
                        s.send(b"READY=1")
                        return "sent"
                    except OSError as e:
                        return e.strerror
                print(tell(os.environ["A"]), flush=True)
                print(tell(os.environ["B"]), flush=True)
                """
            var request = pythonScript(script, output: output.writing)
            request.environment = ["A=\(shared.path)", "B=\(own.path)"]
            request.credentials = .init(uid: 54_321, gid: 54_321, groups: [])
            _ = try children.spawn(request, role: .worker(g1)).get()
            #expect(try output.line() == "sent")
            #expect(try output.line() == "Permission denied")
            #expect(shared.receive().map(\.uid) == [54_321])
            _ = children.clear(g1)
        }
    }
}
