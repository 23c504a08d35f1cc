//  WhyTests.swift
//  The chain, its sentences, its bounds; real failures have golden answers in Tests/EndToEnd/test_why.py.
//  Read Equipment.swift first.

import PanelindCore
import Testing

@testable import PanelindControl

@Suite("why")
struct WhyTests {
    @Test("equal ends in a row are one link with a count")
    func merged() {
        var story = Story()
        story.begin()
        for g in 1...50 {
            story.started(g)
            story.ended(g, failures: g)
        }
        let why = story.why()
        #expect(why.chain.count == 2)
        #expect(why.chain.last?.moment.count == 50)
        #expect(why.chain.last?.moment.generation == 50)
        #expect(why.chain.last?.sentence.what.hasSuffix("The 49 before it, since g1, ended the same way") == true)
        #expect(story.room.chronicle.moments.count == 3)
    }

    @Test("another end begins another link")
    func notMerged() {
        var story = Story()
        story.begin()
        for (g, code) in [(1, 3), (2, 3), (3, 4), (4, 3)] {
            story.started(g)
            story.ended(g, .made(.code(Int32(code))))
        }
        #expect(story.why().chain.map(\.moment.count) == [1, 2, 1, 1])
    }

    @Test("the cause that the last output gives an end is told, and the ends of that cause are one link")
    func refined() {
        var story = Story()
        story.begin()
        for g in 1...3 {
            story.started(g)
            story.step(to: .backoff, [.workerExited(Generation(g), .made(), restartIn: .seconds(1))])
            story.room.exitRecorded(generation: g, cause: "port_in_use", message: "", lines: ["[Errno 98] in use"])
        }
        let why = story.why()
        #expect(why.chain.count == 2)
        #expect(why.chain.last?.sentence.what.has("could not bind its port") == true)
        #expect(why.advice?.has("ss -ltnp 'sport = :8080'") == true)
        #expect(why.output?.lines == ["[Errno 98] in use"])
    }

    @Test("the chain begins at the last calm readiness, not at the beginning of time")
    func anchored() {
        var story = Story()
        story.begin()
        for g in 1...9 {
            story.started(g)
            story.ready(g)
            story.pass(.seconds(3600))
            story.ended(g, .made(.signal(Signal(number: 11), coreDumped: false), .signal, wasReady: true))
        }
        let why = story.why()
        #expect(why.chain.count == 2)
        #expect(why.chain.first?.moment.what == .ready(after: .milliseconds(100)))
        #expect(why.advice?.has("native code") == true)
    }

    @Test("a long story keeps its first link and its newest ones")
    func bounded() {
        var story = Story()
        story.begin()
        for g in 1...200 {
            story.started(g)
            story.ready(g)
            story.ended(g, .made(wasReady: true))
        }
        let why = story.why()
        #expect(why.chain.count == Why.longest)
        #expect(why.omitted > 0)
        #expect(why.chain.last?.moment.generation == 200)
        #expect(story.room.chronicle.moments.count <= Chronicle.capacity)
    }

    @Test("a probe that fails is one link, however often, and silent once the worker is ready")
    func probes() {
        var story = Story()
        story.begin()
        story.started(1)
        for n in 1...1000 {
            story.step([
                .probeFailed(Generation(1), .readiness, reason: "HTTP 503", consecutive: n, beforeReady: true)
            ])
        }
        let waiting = story.why(serving: 1, recent: ["booting"])
        #expect(waiting.chain.count == 2)
        #expect(waiting.chain.last?.sentence.what == "worker g1 is not ready yet: HTTP 503, 1000 times so far")
        #expect(waiting.output?.lines == ["booting"])
        #expect(waiting.advice != nil)
        story.ready(1)
        #expect(story.why(serving: 1).chain.count == 2)
        #expect(story.why(serving: 1).advice == nil)
    }

    @Test("every state has a summary that begins with it", arguments: State.allCases)
    func summaries(state: State) {
        var story = Story()
        story.begin()
        story.step(to: state, [])
        #expect(story.why().summary.hasPrefix(state.rawValue))
        #expect(story.why(serving: 1).summary.hasPrefix(state.rawValue))
    }

    @Test("what a worker or a file says cannot steer the reader's terminal")
    func hostile() {
        var story = Story()
        story.begin()
        story.started(1)
        let hostile = "\u{1B}]0;owned\u{07}\u{1B}[2Jboo\u{9B}31m\r"
        story.ended(
            1, .made(nil, .notFound, failure: StartFailure(.notFound, hostile)), lines: [hostile])
        story.step([.workerUnready(Generation(1), reason: hostile)])
        let text = story.why().text(wall: story.wall)
        #expect(text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) || $0 == "\n" })
        #expect(text.has("boo"))
    }

    @Test(
        "advice fits the reason why a worker is unready",
        arguments: [
            ("connection refused", true, "nobody listens"), ("permission denied", true, "another user"),
            ("HTTP 503", false, "answers that it cannot serve"), ("no answer in 1s", false, "overloaded"),
        ])
    func unreadiness(reason: String, isRefused: Bool, words: String) {
        var story = Story()
        story.begin()
        story.started(1)
        story.ready(1)
        story.step(
            to: .unready, rules: [isRefused ? .connectionRefused(reason) : .readinessFailed(reason)],
            [.workerUnready(Generation(1), reason: reason)])
        let why = story.why(serving: 1)
        #expect(why.advice?.has(words) == true, "\(why.advice ?? "none")")
        #expect(why.summary.has(isRefused ? "refusing connections" : "readiness probe"))
    }

    @Test("every rule and every report has a sentence without an empty part")
    func sentences() {
        let rules: [Rule] = [
            .firstFailureAfterReady(.seconds(12)), .backoff(failures: 3, delay: .seconds(1)),
            .cleanEnd(delay: .milliseconds(250)), .limitExceeded(8), .permanentExitCode(3), .commandUnusable("x"),
            .noProcess("x"), .policyNever, .cleanEndOnFailure, .stopRequested(by: "SIGTERM"), .secondInterrupt,
            .restartRequested, .reloadRequested, .livenessFailed("x", 3), .watchdogMissed(.seconds(2)),
            .successorStarts,
            .connectionRefused("x"),
            .startupDeadlinePassed(.seconds(60), "HTTP 503"), .drained, .onlyStreamsLeft, .drainOver(.seconds(5)),
            .graceOver(.seconds(3)), .unkillable, .clockGap(.seconds(90)),
        ]
        for rule in rules {
            #expect(!rule.words.isEmpty && !rule.words.has("("), "\(rule)")
            for what in [Moment.What.decided(rule), .gaveUp(rule), .exited(.made(), restartIn: nil, rule: rule)] {
                let sentence = Moment(what, at: .zero, wall: 0, generation: 4).sentence
                #expect(!sentence.what.isEmpty && !sentence.what.hasSuffix(" ") && !sentence.text.has("  "), "\(rule)")
            }
        }
    }

    @Test(
        "advice fits the worker's last lines",
        arguments: [
            (["ModuleNotFoundError: No module named 'fastapi'"], "no module 'fastapi'"),
            (["  File \"/app/api.py\", line 12", "    def f(:", "SyntaxError: invalid syntax"], "/app/api.py line 12"),
            (["ERROR: Error loading ASGI app. Could not import module \"apy\"."], "module:attribute"),
            (["PermissionError: [Errno 13] Permission denied: '/x'"], "permission"),
            (["KeyError: 'DATABASE_URL'"], "worker.requiredEnvironment"),
        ])
    func advice(lines: [String], words: String) {
        let advice = Advice.about(.made(), lines: lines, facts: Story().facts())
        #expect(advice?.has(words) == true, "\(advice ?? "none")")
    }

    @Test("an end by the kernel's memory is told with the peak, as a person on call wants it")
    func outOfMemory() {
        var story = Story()
        story.begin()
        story.started(1)
        story.ready(1)
        story.pass(.seconds(3600))
        var ending = Ending.made(.signal(.kill, coreDumped: false), .oom, wasReady: true)
        ending.use.maxRSSBytes = 536_870_912
        story.ended(1, ending, lines: ["loading 40,000 quotes"])
        let text = story.why().text(wall: story.wall).split(separator: "\n").map { line in
            // Without the time, which is that of the reader's zone.
            line.utf8.starts(with: "  | ".utf8) || !line.utf8.starts(with: "  ".utf8) ? line : line.dropFirst(16)
        }
        let golden = [
            "backoff: no worker runs; the next start is in 250ms",
            "worker g1 became ready, 100ms after its start",
            "worker g1 was killed by the kernel because memory ran out: SIGKILL after 200ms",
            "-> panelind starts the next one in 250ms",
            "   because the first failure waits 250ms (restart.delay)",
            "what may help: the worker's peak was 536 MB of resident memory. Give the container or unit more memory, or the "
                + "worker less to do at once (fewer worker processes, smaller batches).",
            "last output of worker g1:",
            "  | loading 40,000 quotes",
        ]
        #expect(text.map(String.init) == golden)
    }

    @Test("an exit code above 128 is said to be a signal that a shell reports")
    func shellCode() {
        let moment = Moment(.exited(.made(.code(139)), restartIn: nil, rule: nil), at: .zero, wall: 0, generation: 1)
        #expect(moment.sentence.what.has("128 + SIGSEGV"))
    }
}
