//  StoriesTests.swift
//  Eight stories, each with its transcript in Golden/. UPDATE_TRANSCRIPTS=1 writes them anew; read the difference.
//  A story that changes is a change of what users see. Read FaultPlan.swift first.

import Glibc
import PanelindCore
import PanelindSimulation
import Testing

/// One world made by hand.
struct Story: Sendable, CustomTestStringConvertible {
    let name: String
    let plan: FaultPlan
    var testDescription: String { name }

    init(_ name: String, lasts: Duration = .seconds(30), _ tell: (inout FaultPlan) -> Void) {
        self.name = name
        var plan = FaultPlan(seed: 1)
        plan.settings.stop.budget = .seconds(9)
        plan.settings.stop.grace = .milliseconds(8500)
        plan.safety = lasts
        plan.wishes = [(.zero, .tell(.start))]
        tell(&plan)
        self.plan = plan
    }

    private static let stop = Wish.tell(.stop(by: "SIGTERM"))

    /// A front whose worker answers on its readiness path.
    private static func front(_ plan: inout FaultPlan) {
        plan.settings.mode = .front
        plan.settings.overlaps = true
        plan.settings.worker.impliedReadiness = .ask(ProbeSettings(.http("/ready")))
        plan.settings.stop.drain = .seconds(5)
        plan.settings.stop.grace = .milliseconds(3500)
    }

    static let all: [Story] = [
        Story("clean-run") { plan in
            front(&plan)
            plan.wishes.append((.seconds(15), stop))
        },
        Story("crash-loop-with-give-up") { plan in
            plan.settings.restart.limit = 3
            var crashing = Behaviour()
            crashing.ends = (.milliseconds(20), .signal(Signal(number: 11), coreDumped: true), false)
            plan.workers = Array(repeating: crashing, count: 4)
        },
        Story("deaf-worker-stopped") { plan in
            var deaf = Behaviour()
            deaf.stopsWithin = nil
            plan.workers = [deaf]
            plan.wishes.append((.seconds(5), stop))
        },
        Story("setsid-survivor") { plan in
            var worker = Behaviour()
            var child = Behaviour.Child(after: .milliseconds(500))
            child.isInGroup = false
            child.ignoresStop = true
            worker.children = [child]
            plan.workers = [worker]
            plan.wishes.append((.seconds(3), .tell(.restart)))
            plan.wishes.append((.seconds(20), stop))
        },
        Story("never-ready") { plan in
            front(&plan)
            plan.settings.worker.startupDeadline = .seconds(2)
            plan.settings.restart.limit = 1
            plan.settings.restart.onGiveUp = .hold
            var never = Behaviour()
            never.upAfter = nil
            plan.workers = [never, never]
            plan.wishes.append((.seconds(20), stop))
        },
        Story("restart-in-backoff") { plan in
            plan.settings.restart.delay = .seconds(20)
            var crashing = Behaviour()
            crashing.ends = (.seconds(3), .code(1), false)
            plan.workers = [crashing]
            plan.wishes.append((.seconds(6), .tell(.restart)))
            plan.wishes.append((.seconds(10), stop))
        },
        Story("reload-with-overlap") { plan in
            front(&plan)
            plan.traffic = .milliseconds(400)
            var new = plan.settings
            new.revision = 1
            plan.wishes.append((.seconds(4), .tell(.reload(new))))
            plan.wishes.append((.seconds(12), stop))
        },
        Story("clock-gap", lasts: .seconds(150)) { plan in
            front(&plan)
            var liveness = ProbeSettings(.http("/live"))
            liveness.failures = 1
            plan.settings.worker.liveness = liveness
            plan.settings.worker.watchdog = .seconds(5)
            plan.wishes.append((.milliseconds(12_005), .freeze(all: true, .seconds(90))))
            plan.wishes.append((.seconds(110), stop))
        },
    ]
}

@Suite("stories")
struct StoriesTests {
    @Test("a story goes as it is written down", arguments: Story.all)
    func story(_ story: Story) throws {
        let verdict = Simulation.run(story.plan, transcript: true)
        #expect(verdict.violation == nil, "\(verdict.violation?.description ?? "")")
        let end = verdict.exitCode.map { "exit \($0)" } ?? "still running"
        let text = verdict.transcript.joined(separator: "\n") + "\n\(end)\n"
        let path = Self.folder + "/\(story.name).txt"
        if getenv("UPDATE_TRANSCRIPTS") != nil { try Self.write(text, to: path) }
        let expected = try Self.read(path)
        #expect(text == expected, "the transcript of \(story.name) differs; UPDATE_TRANSCRIPTS=1 writes it anew")
    }

    struct FileError: Error, CustomStringConvertible {
        let description: String
    }

    private static let folder: String = {
        let file = "\(#filePath)"
        return file[..<(file.lastIndex(of: "/") ?? file.endIndex)] + "/Golden"
    }()

    private static func read(_ path: String) throws -> String {
        guard let file = fopen(path, "r") else {
            throw FileError(description: "cannot read \(path): errno \(errno); UPDATE_TRANSCRIPTS=1 writes it")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[..<count]
        }
    }

    private static func write(_ text: String, to path: String) throws {
        guard let file = fopen(path, "w") else {
            throw FileError(description: "cannot write \(path): errno \(errno)")
        }
        defer { fclose(file) }
        guard fputs(text, file) >= 0 else { throw FileError(description: "cannot write \(path): errno \(errno)") }
    }
}
