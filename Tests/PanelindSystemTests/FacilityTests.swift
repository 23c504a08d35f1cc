//  FacilityTests.swift
//  Signals, descriptors, directories, features and the evidence of OOM kills, each once for real.
//  Read Equipment.swift before it.

import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

@Suite("kernel facilities")
struct FacilityTests {
    @Test("handled signals are read with their sender and do not interrupt")
    func signals() async {
        await #expect(processExitsWith: .success) {
            bound()
            #expect(SignalSource.blockAll() == nil)
            let source = try SignalSource()
            #expect(source.read().isEmpty)
            // A stop and a continue cancel each other while they wait, so they come one after the other.
            for set in [SignalSource.handled.filter { $0 != .terminalStop }, [.terminalStop]] {
                // To this thread: the test's main thread does not block them.
                for signal in set { pthread_kill(pthread_self(), signal.number) }
                #expect(Descriptors.waitReadable(source.descriptor, for: .seconds(10)))
                let received = source.read()
                #expect(Set(received.map(\.signal)) == Set(set))
                #expect(received.allSatisfy { $0.senderPID == getpid() && !$0.isFromTerminal })
            }
            #expect(source.read().isEmpty)
        }
    }

    @Test("records of signals that somebody else read mean the same")
    func parsed() async {
        await #expect(processExitsWith: .success) {
            bound()
            SignalSource.blockAll()
            let source = try SignalSource()
            for number in [SIGTERM, SIGUSR1] { pthread_kill(pthread_self(), number) }
            var bytes = [UInt8](repeating: 0, count: 1000)
            let count = read(source.descriptor, &bytes, bytes.count)
            let received = SignalSource.parse(bytes.prefix(max(0, count)))
            #expect(received.map(\.signal) == [.user1, .terminate])
            #expect(received.allSatisfy { $0.senderPID == getpid() && !$0.isFromTerminal })
        }
    }

    @Test("a process that suspends itself goes on when it is continued")
    func suspension() async {
        await #expect(processExitsWith: .success) {
            bound()
            let children = Children(runToken: "t")
            let request = shell("while kill -CONT \(getpid()); do sleep 0.05; done")
            _ = try children.spawn(request, role: .worker(g1)).get()
            SignalSource.suspendSelf()
            #expect(children.clear(g1) != nil)
        }
    }

    /// F_GETPIPE_SZ, which Swift does not see.
    private let pipeSize: Int32 = 1032

    @Test("a descriptor is closed when its owner goes, and not once it was given away")
    func descriptors() throws {
        var released: Int32 = -1
        do {
            let pipe = try Pipes.makePipe(bytes: 65536 * 2).get()
            #expect(fcntl(pipe.writing.number, pipeSize) == 65536 * 2)
            #expect(fcntl(pipe.reading.number, F_GETFD) & FD_CLOEXEC != 0)
            released = try pipe.reading.duplicate().get()
        }
        #expect(Descriptors.isOpen(released))
        var byte: UInt8 = 0
        // The writing end went with its owner.
        #expect(read(released, &byte, 1) == 0)
        Descriptors.setNonBlocking(released, true)
        #expect(fcntl(released, F_GETFL) & O_NONBLOCK != 0)
        Descriptors.setCloseOnExec(released, false)
        #expect(fcntl(released, F_GETFD) & FD_CLOEXEC == 0)
        close(released)
    }

    @Test("an event descriptor wakes once for many signals")
    func events() throws {
        let event = try EventDescriptor()
        #expect(!Descriptors.waitReadable(event.descriptor.number, for: .zero))
        event.signal()
        event.signal()
        #expect(Descriptors.waitReadable(event.descriptor.number, for: .zero))
        let drained = [event.drain(), event.drain()]
        #expect(drained == [true, false])
    }

    @Test("a private directory is ours alone, or as open as asked, and goes with its files")
    func privateDirectory() throws {
        let outer = try PrivateDirectory.make().get()
        chmod(outer.path, 0o755)
        let variables = ["RUNTIME_DIRECTORY": "\(outer.path):/other", "TMPDIR": "/nonexistent"]
        let inner = try PrivateDirectory.make { variables[$0] }.get()
        #expect(inner.path.hasPrefix(outer.path + "/"))
        #expect(mode(inner.path) == 0o700)
        _ = file(inner.path + "/x", "x", 0o600)
        inner.remove()
        #expect(access(inner.path, F_OK) != 0)
        let open = try PrivateDirectory.make(access: .searchable) { variables[$0] }.get()
        #expect(mode(open.path) == 0o711)
        // Parents that others cannot pass through are of no use to a worker of another user.
        chmod(outer.path, 0o700)
        let elsewhere = try PrivateDirectory.make(access: .searchable) { variables[$0] }.get()
        #expect(elsewhere.path.hasPrefix("/tmp/"))
        let unset = try PrivateDirectory.make { _ in nil }.get()
        #expect(unset.path.hasPrefix("/tmp/panelind-"))
    }

    @Test("what stands in a private directory's place is not emptied in its stead")
    func replacedDirectory() throws {
        let victim = try PrivateDirectory.make().get()
        _ = file(victim.path + "/x", "x", 0o600)
        for byLink in [true, false] {
            let directory = try PrivateDirectory.make().get()
            _ = file(directory.path + "/x", "x", 0o600)
            let moved = directory.path + ".moved"
            rename(directory.path, moved)
            if byLink {
                symlink(victim.path, directory.path)
            } else {
                mkdir(directory.path, 0o700)
                _ = file(directory.path + "/x", "x", 0o600)
            }
            directory.remove("x")
            directory.remove()
            #expect(access(directory.path + "/x", F_OK) == 0 && access(victim.path + "/x", F_OK) == 0)
            unlink(moved + "/x")
            rmdir(moved)
            if byLink {
                unlink(directory.path)
            } else {
                unlink(directory.path + "/x")
                rmdir(directory.path)
            }
        }
    }

    @Test("the worker's own directory belongs to its user", .enabled(if: isRoot))
    func workerDirectory() throws {
        let directory = try PrivateDirectory.make(access: .worker(uid: 54_321)) { _ in nil }.get()
        var status = stat()
        stat(directory.path, &status)
        #expect(status.st_uid == 54_321 && status.st_gid == getegid() && mode(directory.path) == 0o770)
    }

    @Test(
        "OOM kills are counted in our own cgroup of either version, and unknown where nothing can be read",
        arguments: [
            ("0::/a/b\n", "a/b/memory.events", "low 0\noom 3\noom_kill 2\n", UInt64(2)),
            ("0::/host/path\n", "memory.events", "oom_kill 5\n", 5),
            ("9:cpu,memory:/d\n0::/\n", "memory/d/memory.oom_control", "under_oom 0\noom_kill 7\n", 7),
            ("9:memory:/elsewhere\n", "memory/memory.oom_control", "oom_kill 1\n", 1),
        ])
    func oom(membership: String, path: String, text: String, kills: UInt64) throws {
        let root = try PrivateDirectory.make().get()
        var made = [root.path]
        for part in path.split(separator: "/").dropLast() {
            made.append(made[made.count - 1] + "/" + part)
            mkdir(made[made.count - 1], 0o700)
        }
        _ = file("\(root.path)/\(path)", text, 0o600)
        #expect(OOMEvidence(membership: membership, root: root.path).kills() == kills)
        #expect(OOMEvidence(membership: membership, root: "/nonexistent").kills() == nil)
        #expect(OOMEvidence(membership: "", root: root.path).kills() == nil)
        unlink("\(root.path)/\(path)")
        for directory in made.reversed() { rmdir(directory) }
    }

    @Test("the kernel's features are told in words")
    func features() {
        #expect(Features.none.description == "no pidfd, no close_range, no children, proc")
        #expect(Features.current.processTable)
    }

    @Test("the clock only goes forward")
    func clock() {
        let start = Clock.now()
        #expect(Clock.now() >= start)
        #expect(Clock.wallNanoseconds() > 1_600_000_000_000_000_000)
    }

    @Test("an error is told with its words and its name")
    func errors() {
        #expect("\(SystemError(ENOENT))" == "no such file (ENOENT)")
        #expect("\(SystemError(-EADDRINUSE))" == "address already in use (EADDRINUSE)")
        #expect(SystemError(EXDEV).description.hasSuffix("(errno 18)"))
    }

    private func mode(_ path: String) -> UInt32 {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o777 : 0
    }
}
