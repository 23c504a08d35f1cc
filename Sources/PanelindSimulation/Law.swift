//  Law.swift
//  The laws that every simulated world checks, as sentences; one is broken, the seed fails.
//  How each is checked is in Checker.swift.

import PanelindCore

/// What must be true of every step.
public enum Law: String, CaseIterable, Sendable {
    case oneWorker = "no second worker but in a reload's overlap, and never a third"
    case emptyTree = "no worker starts while a process of an earlier one lives, but in an overlap"
    case intentionalStop = "an intentional stop never starts a worker"
    case stopBudget = "a stop ends within its budget"
    case leavingEnds = "a worker that is being killed is gone, or reported as unkillable, within ten seconds"
    case killFollows = "KILL follows: what is left behind was sent KILL"
    case nothingLeft = "no process lives when panelind exits, but in uninterruptible sleep"
    case exitCode = "the exit code is 0 after a requested stop, else the policy's"
    case readyIsTrue = "/ready is 200 only while a request would reach a worker that is known to be ready"
    case publishedFirst = "what changes for clients is published before anything else is done"
    case routeLives = "requests are sent to living workers only"
    case wayOut = "no state without a way out: a deadline, or an event that must come"
    case deadlineAhead = "a deadline that has fired is not armed again in the past"
    case progress = "a finite number of steps at one instant"
    case generations = "generations go up by one"
    case restarts = "restarts counts unplanned replacements, one each"
    case failures = "only failures since the last wanted start are counted"
    case backoff = "a start waits as long as the policy said, unless somebody wants it now"
    case exitReported = "each worker's end is reported exactly once"
    case survivorsReported = "every process that had to be killed, or could not be, is reported"
    case goneIsSilent = "a worker that is gone is told nothing, and its late news change nothing"
    case oneQuestion = "the questions of one probe never overlap, and none is asked without a reason"
    case lateAnswer = "the answer to an old question changes nothing"
    case clockGap = "a clock gap by itself is nobody's failure: what was late through it gets its time again"
    case routedOnly = "a request goes only to the worker that is routed to, and not while that may be dying"
    case onceOnly =
        "a request is made once; again only untouched, and if it never reached a worker, or once if it is safe"
    case inOrder = "first come, first served: nobody overtakes, and a request that was lost goes first"
    case bounded = "held requests, their bytes, and what a worker has stay within their bounds"
    case noneRefusedEarly = "nobody is refused while room and time are left"
    case noneWaitsInVain = "nobody waits whom a worker could serve now, nor longer than the hold"
    case drainTold = "drained and onlyStreamsLeft are told once each, as soon as they are true"
    case oneOutcome = "every client has one outcome, by the cut of its worker at the latest"
    case holdsHope = "requests wait only where a worker can come within the hold, and are refused only where none can"
    case earlyDrain = "what comes in the first two thirds of the drain is served, and nothing later"
    case drainEnds = "a drain asks the front, and ends as soon as nothing but streams is in flight"
    case cutFirst = "clients have their outcome before a drain or a stop kills their worker"
    case reloadLosesNobody = "a reload of a healthy worker beside another harms no request"
    case becomesReady = "when faults stop, the worker becomes ready, or panelind has given up as its policy says"
}

/// A law that was broken, and how.
public struct Violation: Sendable, CustomStringConvertible {
    /// Which law.
    public let law: Law
    /// When, since the world began.
    public let at: Instant
    /// What was seen instead.
    public let details: String

    /// One line for people.
    public var description: String { "+\((at - .zero).text): \(law.rawValue); but \(details)" }
}
