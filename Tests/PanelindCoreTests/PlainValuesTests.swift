//  PlainValuesTests.swift
//  How durations, signals, ends, rules and steps are written.
//  Names of settings are those of CONTRACT section 2.

import Testing

@testable import PanelindCore

@Suite("Plain values")
struct PlainValuesTests {
    @Test(
        "a duration is written as settings take it",
        arguments: [
            (Duration.zero, "0s"), (.milliseconds(250), "250ms"), (.seconds(8), "8s"), (.seconds(60), "60s"),
            (.seconds(120), "2m"), (.seconds(90), "90s"), (.seconds(3600), "1h"), (.milliseconds(1500), "1.5s"),
            (.microseconds(500), "0.5ms"),
            (.milliseconds(61_050), "61.05s"), (.seconds(-2), "-2s"), (.milliseconds(-250), "-250ms"),
            (.milliseconds(-1500), "-1.5s"), (.nanoseconds(999), "0ms"), (.seconds(7200), "2h"),
        ])
    func durations(duration: Duration, text: String) { #expect(duration.text == text) }

    @Test("instants and durations add up to the nanosecond")
    func instants() {
        let start = Instant(nanoseconds: 5)
        #expect((start + .seconds(2)) - start == .seconds(2))
        #expect((start + .nanoseconds(1) - .nanoseconds(1)) == start)
        #expect(start < start + .nanoseconds(1))
        #expect(Duration.milliseconds(1500).seconds == 1.5)
    }

    @Test("a signal is found by its name, with and without SIG, in any case")
    func signals() {
        for (name, number) in [
            ("TERM", Int32(15)), ("SIGTERM", 15), ("sigint", 2), ("Kill", 9), ("USR1", 10), ("WINCH", 28), ("SYS", 31),
            ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMIN+30", 64),
        ] {
            #expect(Signal(name: name)?.number == number)
        }
        for name in ["", "SIG", "NOPE", "15", "RTMIN+31", "RTMIN-1", "TERM ", "SIGSIGTERM"] {
            #expect(Signal(name: name) == nil)
        }
        for number in Int32(1)...31 {
            let signal = Signal(number: number)
            #expect(Signal(name: signal.description) == signal)
            #expect(Signal(name: signal.shortName) == signal)
        }
        #expect("\(Signal(number: 11))" == "SIGSEGV")
        #expect("\(Signal(number: 36))" == "SIGRTMIN+2")
        #expect("\(Signal(number: 33))" == "signal 33")
    }

    @Test("an end is a code or a signal, and a shell's code")
    func ends() {
        #expect(ExitStatus.code(3).description == "exit 3")
        #expect(ExitStatus.kill.description == "SIGKILL")
        #expect(ExitStatus.segv.description == "SIGSEGV, core dumped")
        #expect(ExitStatus.segv.shellCode == 139)
        #expect(RestartTests.ending(.segv).text == "SIGSEGV, core dumped")
        #expect(RestartTests.ending(nil, failure: StartFailure(.other, "cannot read X")).text == "cannot read X")
        #expect(RestartTests.ending(nil).text == "not seen to end")
        let causes = ExitCause.allCases.map(\.rawValue)
        let known = [
            "exit", "signal", "oom", "port_in_use", "not_found", "startup_deadline", "liveness", "watchdog",
            "permanent", "requested",
        ]
        #expect(causes == known)
    }

    /// One of each rule.
    static let rules: [Rule] = [
        .firstStart, .firstFailureAfterReady(.seconds(10)), .backoff(failures: 3, delay: .seconds(1)),
        .cleanEnd(delay: .milliseconds(250)), .successorStarts, .limitExceeded(8), .permanentExitCode(3),
        .commandUnusable("cannot start worker: ENOENT"), .noProcess("cannot start worker: EAGAIN"), .policyNever,
        .cleanEndOnFailure, .stopRequested(by: "SIGTERM"), .secondInterrupt, .restartRequested, .reloadRequested,
        .reloadFailed("exit 1"), .becameReady, .readinessFailed("HTTP 503"), .connectionRefused("no such socket"),
        .livenessFailed("HTTP 500", 3),
        .watchdogMissed(.seconds(3)), .watchdogMissed(nil),
        .startupDeadlinePassed(.seconds(60), "HTTP 503"), .leaderGone,
        .delayOver(.seconds(1)), .drained, .onlyStreamsLeft, .drainOver(.seconds(3)), .graceOver(.seconds(4)),
        .treeEmpty, .unkillable, .clockGap(.seconds(30)),
    ]

    @Test("a rule names its setting as CONTRACT does, and its value", arguments: rules)
    func rule(rule: Rule) {
        let known: Set = [
            "restart.delay", "restart.limit", "restart.permanentExitCodes", "restart.policy", "worker.command",
            "probe.readiness", "probe.liveness", "worker.watchdog", "probe.startup.deadline", "stop.delay",
            "stop.drain", "stop.grace", "stop.budget",
        ]
        if let setting = rule.setting {
            #expect(known.contains(setting))
            #expect(rule.text.hasSuffix(" (\(setting))"))
        }
        #expect(!rule.text.hasSuffix("."))
        #expect(!rule.text.contains("Optional"))
    }

    @Test("a step is one line: time, event, change, reason")
    func line() {
        let start = Instant.zero + .seconds(5)
        var step = Step(
            at: start + .milliseconds(12_034), event: .worker(Generation(3), .exited(.segv, ResourceUse(), oom: false)),
            from: .ready, to: .backoff, rules: [.firstFailureAfterReady(.seconds(10))], actions: [])
        #expect(
            step.line(since: start)
                == "+12.034s  g3 exited SIGSEGV, core dumped  ready -> backoff  because it is the first failure "
                + "after 10s of readiness, which waits nothing")
        step.to = .ready
        step.rules = []
        #expect(step.line(since: start) == "+12.034s  g3 exited SIGSEGV, core dumped  ready")
        for kind in EventKind.allCases {
            #expect(!kind.sample(for: Setup.ready.machine).text.isEmpty)
        }
    }

    @Test("the generator of a seed is the one of the paper")
    func randomNumbers() {
        var random = RandomNumbers(seed: 1_234_567)
        #expect(random.next() == 6_457_827_717_110_365_317)
        #expect(random.next() == 3_203_168_211_198_807_973)
        for _ in 1...1000 { #expect((0..<1).contains(random.fraction())) }
    }

    @Test("the driver takes answers in order, one at a time, and none from inside an action")
    func driver() {
        final class Shell: ActionPerformer {
            var driver: Driver?
            var steps: [String] = []
            var isInside = false
            func perform(_ action: Action, at now: Instant) {
                #expect(!isInside)
                isInside = true
                if case .worker(let g, .spawn) = action { driver?.enqueue(.worker(g, .spawned(pid: 1))) }
                driver?.run()
                isInside = false
            }
            func decided(_ step: Step) { steps.append(step.event.text) }
        }
        let shell = Shell()
        let driver = Driver(Supervisor(.direct(), seed: 1)) { Instant.zero + .seconds(1) }
        driver.performer = shell
        shell.driver = driver
        driver.enqueue(.operator(.start))
        driver.enqueue(.operator(.stop(by: "SIGTERM")))
        driver.run()
        #expect(shell.steps == ["start", "stop by SIGTERM", "g1 spawned as pid 1"])
        shell.driver = nil
    }
}
