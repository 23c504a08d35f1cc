//  BoardTests.swift
//  The health bodies and fields of CONTRACT section 4, and how often they are encoded.
//  Equipment.swift first.

import NIOCore
import NIOHTTP1
import PanelindCore
import Testing

@testable import PanelindHTTP

private final class Clock {
    var now = Instant(nanoseconds: 1_000_000_000)
}

private func board(_ clock: Clock, revision: String? = "panelin-api-00042-abc") -> HealthBoard {
    HealthBoard(version: "1.0.0", revision: revision, startedAt: clock.now, clock: { clock.now })
}

@Suite struct BoardTests {
    @Test("the body is that of the contract")
    func body() {
        let clock = Clock()
        let board = board(clock)
        board.publish(HealthSnapshot(state: .ready, generation: 3, restarts: 2, retryAfter: .zero))
        clock.now = clock.now + .milliseconds(12_567)
        #expect(
            board.body(.ready) == """
                {"status":"ready","state":"ready","reason":null,"generation":3,"restarts":2,\
                "uptime_seconds":12.5,"version":"1.0.0","revision":"panelin-api-00042-abc"}\n
                """)
        #expect(board.body(.health).hasPrefix("{\"status\":\"ok\",\"state\":\"ready\",\"reason\":null,"))
    }

    @Test("every state has its status code, its words and Retry-After on 503", arguments: State.allCases)
    func states(_ state: State) {
        let board = board(Clock(), revision: nil)
        board.publish(HealthSnapshot(state: state, generation: 1, restarts: 0, retryAfter: .milliseconds(2500)))
        let health = String(buffer: board.answer(.health, method: .GET, persistence: .keep))
        let ready = String(buffer: board.answer(.ready, method: .GET, persistence: .keep))
        #expect(health.hasPrefix(state == .failed ? "HTTP/1.1 503 " : "HTTP/1.1 200 "))
        #expect(ready.hasPrefix(state == .ready ? "HTTP/1.1 200 " : "HTTP/1.1 503 "))
        #expect(health.contains(state == .failed ? "\"status\":\"failed\"" : "\"status\":\"ok\""))
        #expect(ready.contains(state == .ready ? "\"status\":\"ready\"" : "\"status\":\"not ready\""))
        #expect(ready.contains("\r\nRetry-After: 3\r\n") == (state != .ready))
        #expect(ready.contains("\"reason\":" + (state.reason.map { "\"\($0.rawValue)\"" } ?? "null")))
        for answer in [health, ready] {
            #expect(answer.contains("\r\nContent-Type: application/json\r\n"))
            #expect(answer.contains("\r\nCache-Control: no-store\r\n"))
            #expect(answer.contains("\"revision\":null}"))
        }
    }

    @Test("HEAD has GET's head and no body; other methods are 405 with Allow")
    func methods() {
        let board = board(Clock())
        let get = String(buffer: board.answer(.health, method: .GET, persistence: .close))
        let head = String(buffer: board.answer(.health, method: .HEAD, persistence: .close))
        #expect(get.hasPrefix(head) && head.hasSuffix("\r\n\r\n") && head.contains("Connection: close\r\n"))
        let post = String(buffer: board.answer(.health, method: .POST, persistence: .keep))
        #expect(post.hasPrefix("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"))
    }

    @Test("an answer is encoded anew after 100 ms or a new snapshot, not before")
    func freshness() {
        let clock = Clock()
        let board = board(clock)
        let first = board.answer(.ready, method: .GET, persistence: .keep)
        clock.now = clock.now + .milliseconds(99)
        #expect(board.answer(.ready, method: .GET, persistence: .keep) == first)
        clock.now = clock.now + .milliseconds(1)
        let second = String(buffer: board.answer(.ready, method: .GET, persistence: .keep))
        #expect(second.contains("\"uptime_seconds\":0.1"))
        board.publish(HealthSnapshot(state: .ready, generation: 1, restarts: 0, retryAfter: .zero))
        #expect(String(buffer: board.answer(.ready, method: .GET, persistence: .keep)).contains("\"state\":\"ready\""))
    }

    @Test("text is quoted as JSON wants it")
    func quoting() {
        #expect(AnswerText.quoted("a\"b\\c\n\u{1}é") == "\"a\\\"b\\\\c\\n\\u0001é\"")
    }
}
