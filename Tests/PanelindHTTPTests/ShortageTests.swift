//  ShortageTests.swift
//  No descriptor is left: accepting rests instead of spinning, and goes on by itself.
//  In a process of its own, since the limit is the whole process's. Equipment.swift first.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore
import Testing

@testable import PanelindHTTP

@Suite struct ShortageTests {
    @Test(
        "the listeners of one process never need more descriptors than there are",
        arguments: [32, 64, 200, 1024, 20000])
    func shares(descriptors: Int) {
        var front = HTTPLimits()
        front.descriptorsPerConnection = 2
        var control = HTTPLimits()
        control.share = 2
        func most(_ limits: HTTPLimits) -> Int {
            let fitted = limits.fitted(descriptors: descriptors, reserve: 128)
            return fitted.connections * limits.descriptorsPerConnection + fitted.extraConnections
        }
        let left = min(128, descriptors / 2)
        #expect(most(front) + most(.sidecar(besideFront: true)) + most(control) <= descriptors - left + 2)
        #expect(most(.sidecar(besideFront: false)) + most(control) <= descriptors - left + 2)
        #expect(front.fitted(descriptors: 20000, reserve: 128).connections == front.connections)
    }

    @Test("without a free descriptor accepting rests, costs nothing, and goes on when one is free")
    func noDescriptors() async {
        await #expect(processExitsWith: .success) {
            exit(shortage() ? 0 : 1)
        }
    }
}

private func cpuSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    let micros = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + Double(micros) / 1e6
}

private func shortage() -> Bool {
    do {
        let (descriptor, port) = try listenerOnLoopback()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let server = try loop.submit {
            NIOLoopBound(try HTTPServer(descriptor: descriptor, loop: loop, responder: readySidecar()), eventLoop: loop)
        }.wait()
        // The kernel completes the connection before anyone accepts it.
        let client = try Client(port: port)
        client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = 256
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        var fillers: [CInt] = []
        while true {
            let filler = dup(0)
            if filler < 0 { break }
            fillers.append(filler)
        }
        guard let last = fillers.last else { return false }
        try loop.flatSubmit { server.value.start() }.wait()
        let before = cpuSeconds()
        // Nothing can be awaited here: the point is that nothing happens.
        usleep(600_000)
        let spent = cpuSeconds() - before
        close(last)
        return client.readAnswers(1).hasPrefix("HTTP/1.1 200 ") && spent < 0.2
    } catch {
        return false
    }
}
