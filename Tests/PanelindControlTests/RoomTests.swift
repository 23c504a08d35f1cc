//  RoomTests.swift
//  Events in the order of the log, operations answered once and truly, queries refused, text made safe.
//  Read Equipment.swift first.

import PanelindCore
import Testing

@testable import PanelindControl

private func event(_ name: String, generation: Int? = nil) -> LoggedEvent {
    let fields = generation.map { [JSON.Member("generation", .int(Int64($0)))] } ?? []
    return LoggedEvent(name: name, severity: "INFO", time: 0, message: name, fields: fields)
}

@Suite("events")
struct EventTests {
    @Test("the last are kept, and their numbers go on")
    func bounded() {
        let log = EventLog()
        for n in 1...2000 { log.append(event("e\(n)")) }
        #expect(log.last == 2000)
        let kept = log.events(after: 0)
        #expect(kept.count == EventLog.capacity)
        #expect(kept.first?.id == UInt64(2000 - EventLog.capacity + 1))
        #expect(zip(kept, kept.dropFirst()).allSatisfy { $0.id + 1 == $1.id })
        #expect(log.events(after: 1998).map(\.name) == ["e1999", "e2000"])
        #expect(log.events(after: 2000).isEmpty && log.events(after: .max).isEmpty)
        #expect(log.newest(3).map(\.id) == [1998, 1999, 2000])
    }

    @Test("an end waits for its worker's last lines, and what comes behind it waits too")
    func ordered() {
        let room = ControlRoom()
        room.record(event("a"))
        room.record(event("worker_exited", generation: 1), awaitingLastLinesOf: 1)
        room.record(event("b"))
        #expect(room.events.events(after: 0).map(\.name) == ["a"])
        #expect(room.lastExit?.generation == 1)
        room.exitRecorded(generation: 2, cause: "exit", message: "of another", lines: [])
        #expect(room.events.last == 1)
        room.exitRecorded(generation: 1, cause: "port_in_use", message: "refined", lines: ["x"])
        let events = room.events.events(after: 0)
        #expect(events.map(\.name) == ["a", "worker_exited", "b"])
        #expect(events[1].message == "refined")
        #expect(events[1].fields.contains(JSON.Member("last_output", .strings(["x"]))))
        #expect(room.lastExit == events[1] || room.lastExit?.message == "refined")
    }

    @Test("a log that says nothing any more does not hold the events back for ever")
    func released() {
        let room = ControlRoom()
        room.record(event("worker_exited", generation: 1), awaitingLastLinesOf: 1)
        for _ in 0..<300 { room.record(event("x")) }
        #expect(room.events.last > 250)
    }
}

@Suite("operations")
struct OperationTests {
    /// A waiter's answer, as it comes.
    final class Answer { var outcomes: [Outcome] = [] }

    private func waiting(_ story: Story, _ kind: PendingOperations.Kind, newest: Int) -> Answer {
        let answer = Answer()
        _ = story.room.pending.add(kind, newest: newest) { answer.outcomes.append($0) }
        return answer
    }

    @Test("a restart is done when a newer worker is ready")
    func restarted() {
        var story = Story()
        let answer = waiting(story, .restart, newest: 3)
        story.step(.operator(.restart), to: .starting, rules: [.restartRequested], [])
        story.step([.workerReady(Generation(3), after: .zero)])
        #expect(answer.outcomes.isEmpty)
        story.step([.workerExited(Generation(3), .made(requested: true), restartIn: .zero)])
        #expect(answer.outcomes.isEmpty)
        story.ready(4)
        story.ready(5)
        #expect(answer.outcomes.map(\.status) == [200])
    }

    @Test("a restart whose worker ends unasked has failed; one that comes between has not")
    func restartFailed() {
        var story = Story()
        let answer = waiting(story, .restart, newest: 1)
        story.step(.operator(.restart), rules: [.restartRequested], [])
        story.step([.workerExited(Generation(2), .made(requested: true), restartIn: .zero)])
        #expect(answer.outcomes.isEmpty)
        story.ended(3)
        #expect(answer.outcomes.map(\.status) == [502])
    }

    @Test("what the machine does not take up is refused at once")
    func refused() {
        var story = Story()
        let restart = waiting(story, .restart, newest: 1)
        let reload = waiting(story, .reload, newest: 1)
        story.step(.operator(.restart), to: .stopping, [])
        story.step(.operator(.reload(SupervisorSettings())), [])
        #expect(restart.outcomes.map(\.status) == [409])
        #expect(reload.outcomes.map(\.status) == [409])
    }

    @Test("a second reload is refused, and the first one's answer is its own")
    func twoReloads() {
        var story = Story()
        let first = waiting(story, .reload, newest: 1)
        let settings = SupervisorSettings()
        story.step(.operator(.reload(settings)), rules: [.reloadRequested], [.reloadBegin(Generation(2))])
        let second = waiting(story, .reload, newest: 1)
        story.step(
            .operator(.reload(settings)), rules: [.reloadRequested],
            [.reloadEnd(Generation(3), failure: "another reload is under way")])
        #expect(second.outcomes.map(\.status) == [409])
        #expect(first.outcomes.isEmpty)
        story.step([.reloadEnd(Generation(2), failure: nil)])
        #expect(first.outcomes.map(\.status) == [200])
    }

    @Test("an end of panelind answers everybody")
    func ended() {
        var story = Story()
        let stop = waiting(story, .stop, newest: 1)
        let restart = waiting(story, .restart, newest: 1)
        story.step(.operator(.restart), rules: [.restartRequested], [])
        story.step(.operator(.stop(by: "panelind stop")), to: .stopping, rules: [.stopRequested(by: "x")], [])
        #expect(restart.outcomes.map(\.status) == [409])
        #expect(stop.outcomes.isEmpty)
        story.room.pending.end(code: 0)
        #expect(stop.outcomes.map(\.status) == [200])
        #expect(restart.outcomes.count == 1)
        #expect(story.room.pending.count == 0)
    }

    @Test("one that left is answered no more")
    func left() {
        var story = Story()
        let answer = Answer()
        let id = story.room.pending.add(.restart, newest: 1) { answer.outcomes.append($0) }
        story.room.pending.remove(id)
        story.step(.operator(.restart), rules: [.restartRequested], [])
        story.ready(2)
        #expect(answer.outcomes.isEmpty)
    }
}

@Suite("small values")
struct SmallValueTests {
    @Test("a query's numbers and flags are taken, or refused with what would be right")
    func query() throws {
        let query = Query("lines=%31%30&follow=true&x=&n=007&dup=1&dup=2&big=99999999999999999999&neg=-1&plus=%2B1")
        #expect(try query.number("lines", in: 0...10) == 10)
        #expect(try query.flag("follow"))
        #expect(try query.number("absent", in: 0...1) == nil)
        #expect(try query.number("n", in: 0...10) == 7)
        for name in ["x", "dup", "big", "neg", "plus", "follow"] {
            #expect(throws: Query.Refusal.self) { try query.number(name, in: 0...UInt64.max) }
        }
        #expect(throws: Query.Refusal.self) { try query.flag("lines") }
        #expect(try !Query(nil).flag("follow"))
        #expect(try Query("%zz=1&%=&&=&a%").flag("a") == false)
    }

    @Test("JSON is written whole: quotes, controls, numbers that are none")
    func json() {
        let value = JSON.object([
            JSON.Member("a\"", .array([.int(-1), .double(0.5), .double(2), .double(.nan), .bool(true), .null])),
            JSON.Member("b", .string("\u{1}\n\\")),
        ])
        #expect(value.text == #"{"a\"":[-1,0.5,2,null,true,null],"b":"\u0001\n\\"}"#)
    }

    @Test(
        "problem details give their detail back", arguments: ["plain", "a \"b\" \\ c\nd\te", "ä€𝄞", "\u{1}\u{7f}", ""])
    func detail(text: String) {
        let body = JSON.object([JSON.Member("status", .int(400)), JSON.Member("detail", .string(text))]).text
        #expect(problemDetail(Array(body.utf8)) == text)
        #expect(problemDetail(Array("{}".utf8)) == nil)
    }

    @Test("text for a terminal has no control but the tab")
    func controls() {
        #expect("a\u{1B}[1;31mb\u{1B}[0m\tc".withoutControls == "ab\tc")
        #expect("a\u{1B}]0;t\u{07}b\u{1B}P1$q\u{1B}\\c\u{1B}".withoutControls.hasPrefix("ab"))
        #expect("plain".withoutControls == "plain")
    }

    @Test("the last hour's states are kept, and how it began")
    func history() {
        var history = StateHistory()
        history.enter(.starting, at: 0)
        history.enter(.ready, at: 10)
        history.enter(.unready, at: StateHistory.span * 2)
        history.enter(.ready, at: StateHistory.span * 2 + 5)
        #expect(history.changes.map(\.state) == [.ready, .unready, .ready])
        for n in 0..<5000 {
            history.enter(n % 2 == 0 ? .ready : .unready, at: StateHistory.span * 2 + Int64(n))
            history.end(at: StateHistory.span * 2 + Int64(n))
        }
        #expect(history.changes.count <= 1024 && history.ends.count <= 1024)
    }
}
