//  FrontTests.swift
//  The whole front where its order of events matters: early answers, stale connections, ends, and that nothing stays.
//  Rig.swift first; the tests of the built binary see the same from outside.

import Glibc
import NIOCore
import PanelindCore
import PanelindHTTP
import Testing

@testable import PanelindFront
@testable import PanelindFuzz

private let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
private let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

private func post(_ body: String, _ fields: String = "") -> String {
    "POST / HTTP/1.1\r\nHost: x\r\n\(fields)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
}

@Suite("The front")
struct FrontTests {
    @Test("after requests of all kinds nothing is kept and everything is freed")
    func freed() throws {
        let rig = try Rig()
        let clients = try (0..<4).map { _ in try rig.client() }
        for client in clients { client.send(get + get) }
        var workers: [Talk] = []
        for _ in clients {
            let worker = try rig.worker()
            worker.read(to: "\r\n\r\n")
            workers.append(worker)
        }
        let owners = try rig.host.on { front in
            var weak: [Weak] = []
            front.server?.deadlines.forEach { weak.append(Weak($0)) }
            front.upstreams.deadlines.forEach { weak.append(Weak($0)) }
            return NIOLoopBound(weak, eventLoop: front.loop)
        }
        #expect(try rig.host.on { _ in owners.value.count { $0.object != nil } } == 8)
        workers[0].send(ok)
        workers[1].close()
        workers[2].send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        clients[3].reset()
        #expect(clients[0].read(to: "ok").hasSuffix("ok"))
        for client in clients[..<3] { client.close() }
        for worker in workers { worker.close() }
        #expect(try rig.kept() == FrontKept())
        // The channels' own last turn.
        for _ in 0..<3 { try rig.host.on { _ in } }
        #expect(try rig.host.on { _ in owners.value.count { $0.object != nil } } == 0)
        #expect(try rig.host.stop())
    }

    private final class Weak {
        weak var object: (any DeadlineOwner)?
        init(_ object: any DeadlineOwner) { self.object = object }
    }

    @Test("an early answer reaches the client, whose body is left where it is")
    func early() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin")
        let worker = try rig.worker()
        worker.read(to: "begin")
        worker.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        let answer = client.readAll()
        #expect(answer.hasPrefix("HTTP/1.1 413 Too Large\r\n"))
        #expect(answer.contains("\r\nConnection: close\r\n"))
        #expect(answer.hasSuffix("\r\n\r\nno"))
        // Never reused: what follows on it would be the rest of a body.
        #expect(worker.readAll().isEmpty)
        client.close()
        #expect(try rig.kept() == FrontKept())
    }

    @Test("a body waits for the worker's 100, and the client sees one")
    func continues() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        let worker = try rig.worker()
        #expect(worker.read(to: "\r\n\r\n").contains("\r\nExpect: 100-continue\r\n"))
        #expect(client.isQuiet)
        worker.send("HTTP/1.1 100 Continue\r\n\r\n")
        #expect(client.read(to: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
        client.send("hello")
        #expect(worker.read(to: "hello") == "hello")
        worker.send("HTTP/1.1 100 Continue\r\n\r\n" + ok)
        #expect(client.read(to: "ok").hasPrefix("HTTP/1.1 200 OK\r\n"))
    }

    @Test("a refusal instead of 100 ends the connection without the body")
    func refusedExpectation() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send("HTTP/1.1 401 Who\r\nContent-Length: 2\r\n\r\nno")
        let answer = client.readAll()
        #expect(answer.hasPrefix("HTTP/1.1 401 Who\r\n") && answer.contains("\r\nConnection: close\r\n"))
        #expect(worker.readAll().isEmpty)
    }

    @Test(
        "a kept connection that the worker has closed is never used, for a GET or a POST",
        arguments: [get, post("body")])
    func stale(second: String) throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send(get)
        let first = try rig.worker()
        first.read(to: "\r\n\r\n")
        first.send(ok)
        client.read(to: "ok")
        first.close()
        client.send(second)
        let fresh = try rig.worker()
        #expect(fresh.read { $0.hasSuffix("\r\n\r\n") || $0.hasSuffix("body") }.hasPrefix(second.prefix(4)))
        fresh.send(ok)
        #expect(client.read(to: "ok").hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(rig.hasNoWorker)
    }

    @Test("a POST on a kept connection that closes under it is answered 502, and not made again")
    func lostPost() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send(get)
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send(ok)
        client.read(to: "ok")
        client.send(post("body"))
        worker.read(to: "body")
        worker.close()
        #expect(client.read(to: "}\n").hasPrefix("HTTP/1.1 502 "))
        client.send(post("next"))
        let next = try rig.worker()
        #expect(!next.read(to: "next").contains("body"))
    }

    @Test("a GET on a kept connection that closes under it is made once more")
    func lostGet() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send(get)
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send(ok)
        client.read(to: "ok")
        client.send(get)
        worker.read(to: "\r\n\r\n")
        worker.close()
        let fresh = try rig.worker()
        fresh.read(to: "\r\n\r\n")
        fresh.send(ok)
        #expect(client.read(to: "ok").hasPrefix("HTTP/1.1 200 OK\r\n"))
    }

    @Test(
        "bytes behind an answer are nobody's answer",
        arguments: [
            ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\nevil",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
        ])
    func extra(answer: String) throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send(get + get)
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send(answer)
        let second = try rig.worker()
        second.read(to: "\r\n\r\n")
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood")
        let all = client.read(to: "good")
        #expect(!all.contains("evil"))
        #expect(all.contains("good"))
    }

    @Test("an HTTP/1.0 client is told that its connection stays, also by the front's own answers")
    func http10() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\nx")
        worker.close()
        let answer = client.read(to: "}\n")
        #expect(answer.hasPrefix("HTTP/1.1 502 "))
        #expect(answer.contains("\r\nConnection: keep-alive\r\n"))
    }

    @Test("an HTTP/2 preface behind a request does not cut that request's answer short")
    func preface() throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send(get + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        let body = String(repeating: "b", count: 3_000_000)
        worker.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(client.readAll().hasSuffix("\r\n\r\n" + body))
    }

    @Test(
        "an interim answer is not what serve.responseTimeout waits for",
        arguments: ["103 Early Hints", "102 Processing"])
    func interim(status: String) throws {
        let rig = try Rig { $0.responseTimeout = .milliseconds(200) }
        let client = try rig.client()
        client.send(get)
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send("HTTP/1.1 \(status)\r\n\r\n")
        #expect(client.read(to: "}\n").contains("HTTP/1.1 504 "))
    }

    @Test("100 Continue is not what serve.responseTimeout waits for")
    func interimContinue() throws {
        let rig = try Rig { $0.responseTimeout = .milliseconds(200) }
        let client = try rig.client()
        client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send("HTTP/1.1 100 Continue\r\n\r\n")
        client.read(to: "\r\n\r\n")
        client.send("hello")
        worker.read(to: "hello")
        #expect(client.read(to: "}\n").hasPrefix("HTTP/1.1 504 "))
    }

    @Test("a client that is slow with its body does not use up serve.responseTimeout")
    func slowUpload() throws {
        let rig = try Rig { $0.responseTimeout = .milliseconds(150) }
        let client = try rig.client()
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\na")
        // Longer than the timeout: the wait itself is what is tested.
        poll(nil, 0, 400)
        client.send("bc")
        worker.read(to: "bc")
        worker.send(ok)
        #expect(client.read(to: "ok").hasPrefix("HTTP/1.1 200 OK\r\n"))
    }

    @Test("each side of a tunnel may end by itself, and the other goes on", arguments: [true, false])
    func tunnels(clientFirst: Bool) throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: t\r\n\r\nglued")
        let worker = try rig.worker()
        #expect(worker.read(to: "\r\n\r\n").hasSuffix("\r\n\r\n"))
        worker.send("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: t\r\n\r\nfirst")
        #expect(client.read(to: "first").contains("\r\nUpgrade: t\r\n"))
        // Bytes behind the request belong to the tunnel, if there is one.
        #expect(worker.read(to: "glued") == "glued")
        let (one, other) = clientFirst ? (client, worker) : (worker, client)
        let much = [UInt8](repeating: 0x6d, count: 2_000_000)
        one.send(much)
        one.finishSending()
        #expect(other.readAll().utf8.count == much.count)
        other.send("still here")
        #expect(one.read(to: "still here") == "still here")
        other.finishSending()
        #expect(one.readAll().isEmpty)
        #expect(try rig.kept() == FrontKept())
    }

    @Test(
        "what one side of a tunnel sent before both ended arrives, however slow the other is", arguments: [true, false])
    func tunnelEnds(toClient: Bool) throws {
        let rig = try Rig()
        let client = try rig.client()
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: t\r\n\r\n")
        let worker = try rig.worker()
        worker.read(to: "\r\n\r\n")
        worker.send("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: t\r\n\r\n")
        client.read(to: "\r\n\r\n")
        let (sender, receiver) = toClient ? (worker, client) : (client, worker)
        // The receiver has nothing to say and reads late.
        receiver.finishSending()
        #expect(sender.readAll().isEmpty)
        let much = [UInt8](repeating: 0x6d, count: 500_000)
        sender.send(much.dropLast(300_000))
        sender.send(Array(much.prefix(300_000)))
        sender.finishSending()
        #expect(receiver.readAll().utf8.count == much.count)
        #expect(try rig.kept() == FrontKept())
    }

    @Test("a client that leaves while the front is connecting is forgotten")
    func leavesWhileConnecting() throws {
        let rig = try Rig()
        // A queue of one, which is full: connect(2) says EAGAIN until somebody accepts.
        listen(rig.listener.descriptor, 0)
        var fillers: [Talk] = []
        for _ in 0..<2 {
            let filler = try rig.client()
            filler.send(get)
            fillers.append(filler)
        }
        let client = try rig.client()
        client.send(post("x"))
        client.reset()
        for filler in fillers { filler.reset() }
        var kept = try rig.host.on { $0.kept }
        for _ in 0..<2000 where kept.clients > 0 || kept.requests > 0 {
            poll(nil, 0, 5)
            kept = try rig.host.on { $0.kept }
        }
        #expect(kept.clients == 0 && kept.requests == 0)
        #expect(try rig.kept() == FrontKept())
    }

    @Test("held requests that leave are forgotten, the others go in order")
    func held() throws {
        let rig = try Rig()
        try rig.host.perform(.route(.hold))
        var clients: [Talk] = []
        for index in 0..<3 {
            let client = try rig.client()
            client.send("GET /\(index) HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
            while try rig.host.on({ $0.held }) <= index { poll(nil, 0, 1) }
        }
        clients[1].reset()
        while try rig.host.on({ $0.held }) > 2 { poll(nil, 0, 1) }
        try rig.host.perform(.route(.forward(Rig.generation)))
        for index in [0, 2] {
            let worker = try rig.worker()
            #expect(worker.read(to: "\r\n\r\n").hasPrefix("GET /\(index) "))
            worker.send(ok)
            #expect(clients[index].read(to: "ok").hasPrefix("HTTP/1.1 200 OK\r\n"))
        }
        #expect(rig.hasNoWorker)
    }

    @Test("a round of the fuzzer finds nothing", arguments: 1...6)
    func rounds(seed: Int) throws {
        let fuzz = try FrontFuzz()
        for round in 0..<5 {
            let finding = try fuzz.run(seed: UInt64(seed * 100 + round))
            #expect(finding == nil, "panelind-fuzz --round \(seed * 100 + round)")
        }
        #expect(try fuzz.stop() == nil)
    }
}
