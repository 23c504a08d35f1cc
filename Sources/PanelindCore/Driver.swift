//  Driver.swift
//  One queue: event -> handle -> actions, one at a time, in the order they came.
//  Whoever performs an action enqueues its answer; nothing calls `handle` from inside an action.
//  The daemon and the simulation run this same file. Read last.

/// Performs actions. Answers come back through `Driver.enqueue`.
public protocol ActionPerformer: AnyObject {
    /// Does one thing; never blocks, never calls `handle`.
    func perform(_ action: Action, at now: Instant)
    /// A step was decided; its actions are performed next.
    func decided(_ step: Step)
}

/// The queue before the machine.
public final class Driver {
    /// The machine. Only the driver changes it.
    public private(set) var supervisor: Supervisor
    /// The machine's public state after the last step.
    public private(set) var state: State
    /// The machine's deadline after the last step, to be read without a copy of the machine.
    public private(set) var deadline: Instant?
    private var queue: [Event] = []
    private var isRunning = false
    private let clock: () -> Instant
    /// Weak, since the performer holds the driver.
    public weak var performer: ActionPerformer?

    /// Called when the queue is empty again: the moment to arm the timer for `supervisor.deadline`.
    public var afterRun: (() -> Void)?

    /// Makes the driver. `clock` is read once for each event.
    public init(_ supervisor: Supervisor, clock: @escaping () -> Instant) {
        self.supervisor = supervisor
        state = supervisor.state
        deadline = supervisor.deadline
        self.clock = clock
    }

    /// In place: of a class's property the getters would be given a copy each, and a machine is a large value.
    private static func look(at supervisor: inout Supervisor) -> (State, Instant?) {
        (supervisor.state, supervisor.deadline)
    }

    /// Adds an event behind those that wait.
    public func enqueue(_ event: Event) { queue.append(event) }

    /// Takes everything that waits, and everything that comes of it. Does nothing when it is running already.
    public func run() {
        guard !isRunning else { return }
        isRunning = true
        defer {
            isRunning = false
            afterRun?()
        }
        // Once: to read a weak reference costs, and the performer outlives the run.
        let performer = performer
        var index = 0
        while index < queue.count {
            let event = queue[index]
            index += 1
            if index == queue.count {
                queue.removeAll(keepingCapacity: true)
                index = 0
            }
            let now = clock()
            let from = state
            let (actions, rules) = supervisor.handle(event, at: now)
            (state, deadline) = Self.look(at: &supervisor)
            performer?.decided(
                Step(at: now, event: event, from: from, to: state, rules: rules, actions: actions))
            for action in actions { performer?.perform(action, at: now) }
        }
    }
}
