//  LeaderTests.swift
//  Signals to leaders and groups, and a main process that takes the leader's place.
//  Each test runs in a process of its own: Children waits for every child there is.

import CPanelindSystem
import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

@Suite("leaders and groups")
struct LeaderTests {
    @Test("a group is signalled also after its leader was reaped, and the rest of the tree apart from it")
    func groups() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            let script = """
                (sleep 301 & echo $!)
                setsid sleep 303 & echo $!
                exec sleep 300
                """
            _ = try children.spawn(shell(script, output: output.writing), role: .worker(g1)).get()
            let member = try output.pid()
            let outside = try output.pid()
            while getpgid(outside) != outside { sched_yield() }
            #expect(children.signal(g1, .kill, target: .leader))
            _ = children.collect { $0.contains(where: \.isLeaderExit) }
            #expect(children.signal(g1, .terminate, target: .group))
            #expect(ends(member))
            #expect(lives(outside))
            let pass = children.sweep(g1, signal: .terminate, skippingGroup: true)
            #expect(pass.signalled.map(\.pid) == [outside])
            #expect(ends(outside))
            #expect(children.clear(g1) != nil)
            _ = children.collect { _ in false }
            #expect(!children.signal(g1, .terminate, target: .group))
            #expect(!children.signal(g1, .terminate, target: .leader))
        }
    }

    @Test("a worker that shares our group is signalled process by process, and we are not")
    func sharedGroup() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            var request = shell("sleep 301 & echo $!; wait", output: output.writing)
            request.newProcessGroup = false
            let leader = try children.spawn(request, role: .worker(g1)).get()
            let member = try output.pid()
            #expect(getpgid(leader) == getpgrp())
            // Would end this process by default, were it sent to the group.
            #expect(children.signal(g1, .user1, target: .group))
            #expect(ends(leader) && ends(member))
            #expect(children.clear(g1) != nil)
        }
    }

    @Test("a main process takes the leader's place, and its end is the worker's")
    func mainProcess() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            let leader = try children.spawn(
                shell("setsid sleep 300 & echo $!; exec sleep 301", output: output.writing), role: .worker(g1)
            ).get()
            let main = try output.pid()
            #expect(!children.adoptMainPID(g1, 1))
            #expect(!children.adoptMainPID(g1, getpid()))
            #expect(!children.adoptMainPID(g2, main))
            #expect(children.adoptMainPID(g1, main))
            #expect(children.leaderPID(of: g1) == main)
            kill(leader, SIGKILL)
            #expect(ends(leader))
            var events: [ChildEvent] = []
            children.reap { events.append($0) }
            #expect(events == [.orphanReaped(1)])
            #expect(children.leaderPID(of: g1) == main)
            #expect(children.signal(g1, .terminate, target: .group))
            events = children.collect { $0.contains(where: \.isLeaderExit) }
            guard case .leaderExited(g1, .signal(.terminate, _), _)? = events.first else { exit(1) }
            #expect(children.leaderPID(of: g1) == nil)
            #expect(children.isGone(g1))
        }
    }

    @Test("the spawned leader counts again when its main process ended unseen")
    func mainProcessEndsFirst() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            let leader = try children.spawn(
                shell("sleep 300 & echo $!; wait; echo waited; exec sleep 301", output: output.writing),
                role: .worker(g1)
            ).get()
            let main = try output.pid()
            #expect(children.adoptMainPID(g1, main))
            kill(main, SIGKILL)
            #expect(try output.line() == "waited")
            kill(leader, SIGTERM)
            let events = children.collect { $0.contains(where: \.isLeaderExit) }
            guard case .leaderExited(g1, .signal(.terminate, _), _)? = events.first else { exit(1) }
        }
    }
}
