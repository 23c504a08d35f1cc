//  SpawningTests.swift
//  What a child starts with, and what is said when it cannot.
//  Read Equipment.swift before it.

import CPanelindSystem
import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

@Suite("starting a process")
struct SpawningTests {
    @Test("a child has an empty mask, default dispositions and the given descriptors only, however others are closed")
    func cleanChild() async {
        await #expect(processExitsWith: .success) {
            bound()
            SignalSource.blockAll()
            for number in [SIGTTOU, SIGINT, SIGUSR1] { signal(number, SIG_IGN) }
            let children = Children(runToken: "t")
            // Without CLOEXEC, in the middle and high up.
            #expect(dup2(2, 40) == 40)
            #expect(dup2(2, 900) == 900)
            for closing in [
                PANELIND_CLOSE_RANGE, PANELIND_CLOSE_RANGE_INT, PANELIND_CLOSE_LISTED, PANELIND_CLOSE_COUNTED,
            ] {
                let output = try Output()
                var request = shell(
                    "grep -E '^Sig(Blk|Ign)' /proc/self/status; cd /proc/self/fd; echo *; echo end",
                    output: output.writing)
                request.closing = Int32(closing)
                request.extraDescriptors = [.init(target: 7, source: 2), .init(target: 50, source: 2)]
                _ = try children.spawn(request, role: .probe(g1, id: 1)).get()
                #expect(try output.line() == "SigBlk:\t0000000000000000")
                #expect(try output.line() == "SigIgn:\t0000000000000000")
                let open = try output.line().split(separator: " ").compactMap { Int($0) }
                // 3 is the shell's own, to list the directory.
                #expect(Set(open).isSubset(of: [0, 1, 2, 3, 7, 50]) && open.contains(50), "\(closing)")
                #expect(try output.line() == "end")
                _ = children.collect { $0.count == 1 }
            }
        }
    }

    @Test("LISTEN_PID and WATCHDOG_PID are the child's own pid, and lent sockets have their numbers")
    func pidVariables() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            // Each source has the other's target: a plain dup2 would overwrite one of them.
            let (a, b) = try Pipes.makePipe().get().release()
            let low = min(a, b), high = max(a, b)
            var before = [stat(), stat()]
            fstat(low, &before[0])
            fstat(high, &before[1])
            var request = shell(
                "echo $$ $LISTEN_PID $WATCHDOG_PID $PANELIND_GENERATION; "
                    + "stat -L -c %i /proc/self/fd/\(low) /proc/self/fd/\(high); exec sleep 100", output: output.writing
            )
            request.environment.append("LISTEN_PID=1")
            request.setsListenPID = true
            request.setsWatchdogPID = true
            request.extraDescriptors = [.init(target: low, source: high), .init(target: high, source: low)]
            let pid = try children.spawn(request, role: .worker(g1)).get()
            #expect(try output.line() == "\(pid) \(pid) \(pid) 1:t")
            #expect(try output.line() == "\(before[1].st_ino)")
            #expect(try output.line() == "\(before[0].st_ino)")
            #expect(getpgid(pid) == pid)
            #expect(children.clear(g1) != nil)
        }
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var make: @Sendable (String) -> SpawnRequest
        var kind: StartFailure.Kind
        var words: String
        var testDescription: String { words }
    }

    @Test(
        "a command that cannot be executed is refused with its reason",
        arguments: [
            Refusal(
                make: { SpawnRequest(executable: "\($0)/none", arguments: ["x"]) }, kind: .notFound,
                words: "none\": no such file (ENOENT)"),
            Refusal(
                make: { file("\($0)/plain", "true\n", 0o644) }, kind: .notExecutable,
                words: "permission denied (EACCES)"),
            Refusal(
                make: { file("\($0)/headless", "true\n", 0o755) }, kind: .notExecutable,
                words: "not a program: no valid header (ENOEXEC)"),
            Refusal(
                make: { file("\($0)/script", "#! /no/such/sh -e\n", 0o755) }, kind: .notFound,
                words: "its interpreter \"/no/such/sh\" is not"),
            Refusal(make: { SpawnRequest(executable: $0, arguments: ["x"]) }, kind: .notExecutable, words: "(EACCES)"),
            Refusal(
                make: { SpawnRequest(executable: "/bin/sh", arguments: ["sh"], directory: "\($0)/none") }, kind: .other,
                words: "cannot change to directory"),
            Refusal(
                make: { _ in SpawnRequest(executable: "/bin/sh", arguments: ["a\0b"]) }, kind: .other,
                words: "argument 0 contains a NUL byte"),
            Refusal(
                make: { _ in
                    var request = SpawnRequest(executable: "/bin/sh", arguments: ["sh"])
                    request.extraDescriptors = [.init(target: 3, source: 999_999)]
                    return request
                }, kind: .other, words: "cannot prepare descriptor 3: bad descriptor (EBADF)"),
        ])
    func refusals(_ refusal: Refusal) throws {
        let directory = try PrivateDirectory.make().get()
        let request = refusal.make(directory.path)
        guard case .failure(let error) = spawn(request, features: .current) else {
            Issue.record("it was started")
            return
        }
        let failure = error.startFailure(of: request)
        #expect(failure.kind == refusal.kind)
        #expect(failure.message.hasPrefix("cannot start worker \"\(request.executable)\": "))
        #expect(failure.message.contains(refusal.words), "\(failure.message)")
    }

    @Test("the loader of a program is named")
    func loader() throws {
        let named = try #require(Interpreter.named(in: "/bin/sh"))
        #expect(named.kind == "loader")
        #expect(access(named.path, X_OK) == 0)
    }

    @Test("a start that fails for want of descriptors or processes is no process, and works once there are some")
    func scarcity() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            var before = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
            var low = rlimit(rlim_cur: 3, rlim_max: before.rlim_max)
            if Features.current.pidfd {
                setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &low)
                guard case .failure(let error) = children.spawn(shell("true"), role: .worker(g1)) else { exit(1) }
                setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
                #expect(error.error.number == EMFILE)
                #expect(error.startFailure(of: shell("")).kind == .noProcess)
            }
            if isRoot {
                #expect(setuid(54_321) == 0)
                var none = rlimit(rlim_cur: 0, rlim_max: 0)
                setrlimit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue), &none)
                guard case .failure(let error) = children.spawn(shell("true"), role: .worker(g1)) else { exit(1) }
                #expect(error.error.number == EAGAIN)
                #expect(error.startFailure(of: shell("")).kind == .noProcess)
            } else {
                _ = try children.spawn(shell("true"), role: .worker(g1)).get()
                #expect(children.collect { $0.contains(where: \.isLeaderExit) }.count == 1)
            }
            #expect(children.leaderPID(of: g1) == nil)
        }
    }

    @Test("limits apply to the child, also one below the numbers of our own descriptors")
    func limits() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            let high = fcntl(2, F_DUPFD_CLOEXEC, 200)
            var request = shell("ulimit -n; ulimit -c; echo three >&3", output: output.writing)
            request.limits = [.init(.openFiles, 32), .init(.core, 0)]
            request.extraDescriptors = [.init(target: 3, source: output.writing)]
            _ = try children.spawn(request, role: .probe(g1, id: 1)).get()
            #expect(try output.line() == "32")
            #expect(try output.line() == "0")
            #expect(try output.line() == "three")
            close(high)
            _ = children.collect { $0.count == 1 }
        }
    }

    @Test("a child that drops to a user has its ids and groups, and we stay dumpable", .enabled(if: isRoot))
    func credentials() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let output = try Output()
            var request = shell("grep -E '^(Uid|Gid|Groups)' /proc/self/status", output: output.writing)
            request.credentials = .init(uid: 54_321, gid: 54_322, groups: [54_323, 54_324])
            let pid = try children.spawn(request, role: .worker(g1)).get()
            #expect(try output.line() == "Uid:\t54321\t54321\t54321\t54321")
            #expect(try output.line() == "Gid:\t54322\t54322\t54322\t54322")
            #expect(try output.line().hasPrefix("Groups:\t54323 54324"))
            #expect(ends(pid))
            _ = children.collect { !$0.isEmpty }
            var status = stat()
            stat("/proc/self/mem", &status)
            #expect(status.st_uid == getuid())
        }
    }

    @Test("a worker dies with panelind, with another user's credentials too")
    func parentDeath() async throws {
        let result = try await #require(
            processExitsWith: .success, observing: [\.standardOutputContent]
        ) {
            bound()
            let children = Children(runToken: "t")
            var pids: [Int32] = []
            for drops in isRoot ? [false, true] : [false] {
                var request = SpawnRequest(executable: "/bin/sleep", arguments: ["sleep", "300"])
                if drops { request.credentials = .init(uid: 54_321, gid: 54_321, groups: []) }
                pids.append(try children.spawn(request, role: .probe(g1, id: pids.count)).get())
            }
            for pid in pids {
                try #require(lives(pid))
                print("pid \(pid)")
            }
            fflush(nil)
            exit(0)
        }
        let pids = String(decoding: result.standardOutputContent, as: UTF8.self).split(separator: "\n")
            .filter { $0.hasPrefix("pid ") }.compactMap { Int32($0.dropFirst(4)) }
        #expect(!pids.isEmpty)
        for pid in pids { #expect(ends(pid)) }
    }

    @Test("a command without a slash is searched in the worker's PATH, one with a slash from its directory")
    func resolving() throws {
        #expect(SpawnRequest.resolve("sh", searchPath: "/nope:/bin", directory: nil) == .found("/bin/sh"))
        #expect(SpawnRequest.resolve("./sh", searchPath: "", directory: "/bin") == .found("./sh"))
        guard case .failed(let failure) = SpawnRequest.resolve("no-such-program", searchPath: "/bin", directory: nil)
        else { throw Missing() }
        #expect(failure.kind == .notFound)
        #expect(
            failure.message == "cannot start worker \"no-such-program\": no such file (ENOENT) in PATH=/bin")
        let directory = try PrivateDirectory.make().get()
        _ = file("\(directory.path)/plain", "x", 0o644)
        guard case .failed(let refused) = SpawnRequest.resolve("plain", searchPath: directory.path, directory: nil)
        else { throw Missing() }
        #expect(refused.kind == .notExecutable)
    }
}

struct Missing: Error {}

/// Writes a file and returns the request that executes it.
func file(_ path: String, _ text: String, _ mode: mode_t) -> SpawnRequest {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode)
    _ = text.withCString { write(descriptor, $0, strlen($0)) }
    close(descriptor)
    return SpawnRequest(executable: path, arguments: [path])
}
