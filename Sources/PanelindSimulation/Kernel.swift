//  Kernel.swift
//  What is true of processes in a simulated world: trees, groups, signals, zombies, uninterruptible sleep, pids.
//  The machine never sees it; the checker does. Read before World.swift.

import PanelindCore

/// One process, whose `id` is never used again; its pid is.
struct SimulatedProcess {
    let id: Int
    let pid: Int32
    let generation: Generation
    let isLeader: Bool
    /// In the leader's process group; else it left by setsid(2).
    let isInGroup: Bool
    /// Catches and ignores the stop signals.
    var ignoresStop = false
    /// Ends by itself when its leader does.
    var followsLeader = false
    /// False: a zombie that is not reaped yet.
    var isAlive = true
    /// Stopped by SIGSTOP.
    var isStopped = false
    /// In uninterruptible sleep.
    var isSleeping = false
    /// KILL was sent.
    var isKilled = false
    /// Arrived while it could not run.
    var pending: [Signal] = []

    /// It can act and react. What was sent KILL runs no instruction of its own any more, and cannot fork (fork(2) fails
    /// while a signal is pending).
    var isRunning: Bool { isAlive && !isStopped && !isSleeping && !isKilled }
}

/// What a signal leads to; the world plans it.
enum SignalEffect {
    case nothing
    case dies(ExitStatus)
    /// The behaviour of the process decides.
    case handles
    case continues
}

/// All processes of a simulated machine but panelind's own.
public struct Kernel {
    private(set) var processes: [SimulatedProcess] = []
    private var made = 0
    private var lastPid: Int32 = 1
    /// Small, so that pids are soon used again.
    static let lastOfPids: Int32 = 40

    /// Makes a kernel without processes.
    public init() {}

    /// Makes a process and returns its id.
    mutating func make(
        _ generation: Generation, isLeader: Bool, isInGroup: Bool, ignoresStop: Bool = false,
        followsLeader: Bool = false
    ) -> Int {
        made += 1
        repeat {
            lastPid = lastPid >= Self.lastOfPids + Int32(processes.count) ? 2 : lastPid + 1
        } while isUsed(lastPid)
        var process = SimulatedProcess(
            id: made, pid: lastPid, generation: generation, isLeader: isLeader, isInGroup: isInGroup)
        process.ignoresStop = ignoresStop
        process.followsLeader = followsLeader
        processes.append(process)
        return made
    }

    private func isUsed(_ pid: Int32) -> Bool { processes.contains { $0.pid == pid } }

    func index(of id: Int) -> Int? { processes.firstIndex { $0.id == id } }

    func process(_ id: Int) -> SimulatedProcess? { index(of: id).map { processes[$0] } }

    /// Changes one process in place.
    mutating func update(_ index: Int, _ body: (inout SimulatedProcess) -> Void) { body(&processes[index]) }

    /// The leader of this generation, alive or a zombie.
    func leader(of generation: Generation) -> SimulatedProcess? {
        processes.first { $0.isLeader && $0.generation == generation }
    }

    /// Whether a process of this generation is alive and meets the condition.
    func hasLiving(_ generation: Generation, where condition: (SimulatedProcess) -> Bool = { _ in true }) -> Bool {
        processes.contains { $0.generation == generation && $0.isAlive && condition($0) }
    }

    /// It has ended and is a zombie from here.
    mutating func end(_ index: Int) {
        processes[index].isAlive = false
        processes[index].isSleeping = false
        processes[index].pending = []
    }

    /// The zombie is reaped: its pid is free.
    mutating func reap(_ index: Int) { processes.remove(at: index) }

    /// Sends a signal to one process (signal(7)).
    mutating func send(_ signal: Signal, to index: Int) -> SignalEffect {
        guard processes[index].isAlive else { return .nothing }
        switch signal {
        case .kill:
            processes[index].isKilled = true
            return processes[index].isSleeping ? .nothing : .dies(.signal(.kill, coreDumped: false))
        case .stop, .terminalStop:
            processes[index].isStopped = true
            return .nothing
        case .continue:
            guard processes[index].isStopped else { return .nothing }
            processes[index].isStopped = false
            return processes[index].isSleeping ? .nothing : .continues
        default:
            guard processes[index].isRunning else {
                processes[index].pending.append(signal)
                return .nothing
            }
            return .handles
        }
    }

    /// The living processes of a generation, as a sweep reports them.
    func survivors(of generation: Generation) -> [Survivor] {
        var left: [Survivor] = []
        for process in processes where process.generation == generation && process.isAlive {
            left.append(
                Survivor(
                    pid: process.pid, command: process.isLeader ? "worker" : "child",
                    uninterruptible: process.isSleeping))
        }
        return left
    }
}
