//  ChildrenTests.swift
//  Every child is reaped, every process has an owner, and no process of a tree outlives its sweep.
//  Each test runs in a process of its own: Children waits for every child there is.

import CPanelindSystem
import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

/// Leaves a group, leaves a session, daemonises, and forgets the environment; prints four pids.
let tree = """
    sleep 301 & echo $!
    setsid sh -c 'echo $$; exec sleep 302' &
    (setsid sh -c 'sleep 303 & echo $!' &)
    (env -i setsid sh -c 'sleep 304 & echo $!' &)
    exec sleep 300
    """

@Suite("children and sweeps")
struct ChildrenTests {
    @Test("two children that die at once are never missed")
    func coalesced() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            #expect(children.adoptsOrphans)
            let request = SpawnRequest(executable: "/bin/true", arguments: ["true"])
            for number in 1...500 {
                let generation = Generation(number)
                _ = try children.spawn(request, role: .worker(generation)).get()
                _ = try children.spawn(request, role: .probe(generation, id: number)).get()
                let events = children.collect { $0.count >= 2 }
                #expect(events.contains(.probeExited(generation, id: number, .code(0))))
                guard case .leaderExited(generation, .code(0), let use)? = events.first(where: \.isLeaderExit) else {
                    exit(1)
                }
                #expect(use.maxRSSBytes > 0)
                #expect(children.isGone(generation))
                children.forget(generation)
            }
            #expect(children.reapedTotal == 1000)
        }
    }

    @Test("a leader's end is told by code or signal, without a core where none was written")
    func statuses() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            for (number, script) in ["exit 3", "kill -SEGV $$", "kill -KILL $$"].enumerated() {
                var request = shell(script)
                request.limits = [.init(.core, 0)]
                _ = try children.spawn(request, role: .worker(Generation(number))).get()
            }
            let events = children.collect { $0.count == 3 }
            for case .leaderExited(let generation, let status, _) in events {
                let expected: [PanelindCore.ExitStatus] = [
                    .code(3), .signal(Signal(number: SIGSEGV), coreDumped: false), .signal(.kill, coreDumped: false),
                ]
                #expect(status == expected[generation.number])
            }
        }
    }

    @Test("a hundred orphans are reaped and counted, and the worker lives on")
    func orphans() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let worker = try children.spawn(
                shell("i=0; while [ $i -lt 100 ]; do (true &); i=$((i+1)); done; exec sleep 300"), role: .worker(g1)
            ).get()
            let events = children.collect { $0.reduce(0) { $0 + $1.orphans } >= 100 }
            #expect(events.reduce(0) { $0 + $1.orphans } == 100)
            #expect(events.filter(\.isLeaderExit).isEmpty)
            #expect(lives(worker))
            #expect(children.sweep(g1, signal: nil).left.map(\.pid) == [worker])
            #expect(children.clear(g1) != nil)
        }
    }

    @Test("a zombie whose parent lives is not ours to reap")
    func zombiesOfTheWorker() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            // sleep never waits for the child that it inherits from the shell.
            let script = "sh -c 'echo $$; read x <&3' & exec sleep 300"
            let (reading, writing) = try Pipes.makePipe().get().release()
            var request = shell(script, output: output.writing)
            request.extraDescriptors = [.init(target: 3, source: reading)]
            let worker = try children.spawn(request, role: .worker(g1)).get()
            let zombie = try output.pid()
            while ProcessTable.command(of: worker) != "sleep 300" { sched_yield() }
            close(writing)
            #expect(ends(zombie))
            children.reap { _ in Issue.record("something was reaped") }
            #expect(ProcessEntry(pid: zombie)?.isAlive == false)
            #expect(children.sweep(g1, signal: nil).left.map(\.pid) == [worker])
            #expect(children.clear(g1) != nil)
        }
    }

    @Test("a sweep finds and kills what left group, session and environment, with and without pidfd and children")
    func sweepFindsAll() async {
        await #expect(processExitsWith: .success) {
            bound()
            for features in [Features.current, .none] {
                let children = Children(runToken: "t", features: features)
                let output = try Output()
                let leader = try children.spawn(shell(tree, output: output.writing), role: .worker(g1)).get()
                let pids = try (0..<4).map { _ in try output.pid() }
                for pid in pids { #expect(children.owner(of: pid) == g1) }
                #expect(children.signal(g1, .kill, target: .leader))
                let events = children.collect { $0.contains(where: \.isLeaderExit) }
                #expect(
                    events.contains { if case .leaderExited(g1, .signal(.kill, _), _) = $0 { true } else { false } })
                #expect(children.leaderPID(of: g1) == nil)
                // The shells that forked them may live a moment longer.
                #expect(Set(children.sweep(g1, signal: nil).left.map(\.pid)).isSuperset(of: pids))
                let pass = children.sweep(g1, signal: .kill)
                #expect(Set(pass.signalled.map(\.pid)).isSuperset(of: pids))
                for number in 301...304 {
                    #expect(pass.signalled.contains { $0.command.contains("sleep \(number)") })
                }
                for pid in pids { #expect(ends(pid)) }
                _ = children.collect { _ in false }
                #expect(children.sweep(g1, signal: .kill) == SweepPass())
                #expect(children.isGone(g1))
                #expect(children.reapedTotal >= 5)
                _ = leader
            }
        }
    }

    @Test("without a subreaper descendants are found by group, session and environment, and strangers are spared")
    func withoutSubreaper() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "run", adopting: false)
            #expect(children.subreaperRefused == EPERM && !children.adoptsOrphans)
            let output = try Output()
            _ = try children.spawn(shell(tree, output: output.writing), role: .worker(g1)).get()
            let pids = try (0..<4).map { _ in try output.pid() }
            // Only the one without environment, in a session of its own, has got away.
            var strays: [Int32] = []
            for pid in pids {
                while !ProcessTable.command(of: pid).hasPrefix("sleep") { sched_yield() }
                if ProcessTable.command(of: pid) == "sleep 304" {
                    strays.append(pid)
                } else {
                    #expect(children.owner(of: pid) == g1)
                }
            }
            #expect(children.owner(of: 1) == nil)
            #expect(children.owner(of: getpid()) == nil)
            #expect(children.owner(of: getppid()) == nil)
            #expect(children.signal(g1, .kill, target: .leader))
            _ = children.collect { $0.contains(where: \.isLeaderExit) }
            let pass = children.sweep(g1, signal: .kill)
            #expect(Set(pass.signalled.map(\.pid)).isSuperset(of: Set(pids).subtracting(strays)))
            #expect(strays.count == 1 && !pass.signalled.map(\.pid).contains(strays[0]))
            for survivor in pass.signalled { #expect(ends(survivor.pid)) }
            #expect(children.isGone(g1))
            for pid in strays {
                #expect(lives(pid))
                kill(pid, SIGKILL)
            }
        }
    }

    @Test("another panelind's token is not ours")
    func foreignToken() async {
        await #expect(processExitsWith: .success) {
            bound()
            let mine = Children(runToken: "mine", adopting: false)
            let other = Children(runToken: "other", adopting: false)
            let output = try Output()
            let script = "(setsid sh -c 'sleep 300 & echo $!' &); exec sleep 301"
            _ = try mine.spawn(shell(script, output: output.writing), role: .worker(g1)).get()
            let ours = try output.pid()
            _ = try other.spawn(shell(script, output: output.writing), role: .worker(g1)).get()
            let theirs = try output.pid()
            #expect(mine.owner(of: ours) == g1 && mine.owner(of: theirs) == nil)
            #expect(other.owner(of: theirs) == g1 && other.owner(of: ours) == nil)
            for children in [mine, other] {
                for survivor in children.sweep(g1, signal: .kill).signalled { #expect(ends(survivor.pid)) }
            }
            #expect(mine.isGone(g1) && other.isGone(g1))
        }
    }

    @Test("an orphan belongs to the generation of its environment, else to the oldest; a sweep touches only its own")
    func twoGenerations() async {
        await #expect(processExitsWith: .success) {
            bound()
            for features in [Features.current, .none] {
                let children = Children(runToken: "t", features: features)
                let output = try Output()
                let first = try children.spawn(shell("exec sleep 300"), role: .worker(g1)).get()
                _ = try children.spawn(
                    shell(
                        "(setsid sh -c 'sleep 301 & echo $!' &); exec sleep 302", output: output.writing),
                    role: .worker(g2)
                ).get()
                let marked = try output.pid()
                #expect(children.owner(of: marked) == g2)
                let third = Generation(3)
                _ = try children.spawn(
                    shell("(env -i setsid sh -c 'sleep 303 & echo $!' &)", output: output.writing), role: .worker(third)
                ).get()
                let unmarked = try output.pid()
                _ = children.collect { $0.contains(where: \.isLeaderExit) }
                #expect(children.owner(of: unmarked) == g1 || children.owner(of: unmarked) == third)
                #expect(children.clear(g2) != nil)
                #expect(ends(marked))
                #expect(lives(first) && lives(unmarked))
                #expect(children.clear(third) != nil)
                #expect(children.clear(g1) != nil)
                #expect(!lives(unmarked))
            }
        }
    }

    @Test("a sweep never kills a probe or what a probe started, and killing a probe takes its group")
    func probes() async {
        await #expect(processExitsWith: .success) {
            bound()
            for features in [Features.current, .none] {
                let children = Children(runToken: "t", features: features)
                let output = try Output()
                _ = try children.spawn(shell("exec sleep 300"), role: .worker(g1)).get()
                let script = "(setsid sh -c 'sleep 304 & echo $!' &); (sleep 302 & echo $!); sleep 301 & echo $!; wait"
                let probe = try children.spawn(shell(script, output: output.writing), role: .probe(g1, id: 7)).get()
                let helpers = try (0..<3).map { _ in try output.pid() }
                #expect(children.owner(of: probe) == nil)
                #expect(children.clear(g1) != nil)
                #expect(lives(probe), "the probe")
                for helper in helpers { #expect(lives(helper), "what it started: \(helpers) \(helper)") }
                #expect(children.killProbe(g1, id: 7))
                let events = children.collect {
                    $0.contains(.probeExited(g1, id: 7, .signal(.kill, coreDumped: false)))
                }
                #expect(events.contains(.probeExited(g1, id: 7, .signal(.kill, coreDumped: false))))
                #expect(!children.killProbe(g1, id: 7))
                // The one that left the probe's group is the worker's to clean up, now that the probe is over.
                #expect(children.clear(g1) != nil)
                for helper in helpers { #expect(!lives(helper), "after the probe") }
            }
        }
    }

    @Test("a tree that forks for its life is outrun in a few passes", .enabled(if: hasPython))
    func forkers() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            // They end by themselves if this test fails to end them.
            let comet = "import os, time\nend = time.time() + 20\nwhile time.time() < end:\n  "
            let scripts = [
                // Each process lives for one fork; then the same, each in a session of its own.
                comet + "if os.fork(): os._exit(0)",
                comet + "if os.fork(): os._exit(0)\n  os.setsid()",
                // Breadth instead of speed.
                "import os, time\nfor i in range(6): os.fork()\ntime.sleep(300)",
            ]
            for (number, script) in scripts.enumerated() {
                let generation = Generation(number + 1)
                _ = try children.spawn(pythonScript(script), role: .worker(generation)).get()
                if number < 2 { _ = children.collect { $0.contains { $0.orphans > 0 } } }
                let passes = try #require(children.clear(generation))
                #expect(passes <= 10)
                #expect(children.isGone(generation))
                _ = children.collect { _ in false }
                #expect(panelindHasNoChild())
                children.forget(generation)
            }
        }
    }

    @Test("that nothing is left is proved without reading /proc")
    func emptyIsCheap() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            _ = try children.spawn(SpawnRequest(executable: "/bin/true", arguments: ["true"]), role: .worker(g1)).get()
            _ = children.collect { $0.contains(where: \.isLeaderExit) }
            let start = Clock.now()
            for _ in 0..<1000 { #expect(children.sweep(g1, signal: .kill).left.isEmpty) }
            let each = (Clock.now() - start) / 1000
            #expect(each < .milliseconds(1))
        }
    }

    @Test("a process whose first thread ended is alive", .enabled(if: hasPython))
    func threadedZombie() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            let script = """
                import ctypes, threading, time
                libc = ctypes.CDLL(None)
                def stay():
                    print("up", flush=True)
                    time.sleep(300)
                threading.Thread(target=stay).start()
                libc.pthread_exit(None)
                """
            let pid = try children.spawn(pythonScript(script, output: output.writing), role: .worker(g1)).get()
            #expect(try output.line() == "up")
            #expect(lives(pid))
            #expect(children.clear(g1) != nil)
        }
    }
}
