//  Sentences.swift
//  One moment of the chronicle as a sentence, and the decision that followed it with its rule and setting.
//  Pure. Read after Chronicle.swift; Why.swift puts the sentences together.

import PanelindCore

/// A moment in words.
struct Sentence: Hashable {
    /// What happened: `worker g4 ended before it was ready: exit 1 after 210ms`.
    var what: String
    /// What panelind decided on it: `panelind starts the next one in 250ms`; nil where it had nothing to decide.
    var decision: String?
    /// Why it decided so; the rule's own words.
    var because: String?
    /// The setting behind the rule.
    var setting: String?

    /// What happened, and what was decided, as one text.
    var text: String {
        guard let decision else { return because.map { "\(what), because \($0)" } ?? what }
        return "\(what); \(decision)" + (because.map { ", because \($0)" } ?? "")
    }
}

extension Moment {
    /// The moment in words.
    var sentence: Sentence {
        switch what {
        case .began: Sentence(what: "panelind started")
        case .started(let pid): Sentence(what: "worker \(name) started as pid \(pid)")
        case .ready(let after): Sentence(what: "worker \(name) became ready, \(Times.span(after)) after its start")
        case .unready(let reason, isRefused: true):
            Sentence(
                what: "worker \(name) runs, but takes no connection at its address (\(reason.withoutControls))",
                decision: "no request is sent to it until it takes one and is ready; panelind asks four times a second")
        case .unready(let reason, isRefused: false):
            Sentence(
                what: "worker \(name) stopped being ready: its readiness probe fails (\(reason.withoutControls))",
                decision: "no new request reaches it until the probe passes again", setting: "probe.readiness")
        case .exited(let ending, let restartIn, let rule): ended(ending, restartIn, rule)
        case .gaveUp(let rule):
            Sentence(what: "panelind gave up", because: rule.words, setting: rule.setting)
        case .probeFailed(let kind, let reason, let beforeReady): failed(kind, reason.withoutControls, beforeReady)
        case .decided(let rule): decided(rule)
        case .survivorsKilled(let survivors):
            Sentence(
                what: "\(processes(survivors)) outlived worker \(name) and had to be killed: \(list(survivors))")
        case .survivorsLeft(let survivors):
            Sentence(
                what: "\(processes(survivors)) of worker \(name) cannot be killed, \(Survivor.whyLeft(survivors)): "
                    + list(survivors))
        case .reloadBegan: Sentence(what: "a reload was asked for; worker \(name) is to take over")
        case .reloadEnded(nil): Sentence(what: "the reload is done: worker \(name) has taken over")
        case .reloadEnded(let failure?): Sentence(what: "the reload failed: \(failure.withoutControls)")
        case .rejected(let errors):
            Sentence(
                what: "a reload was refused, and nothing was changed: "
                    + errors.map(\.withoutControls).joined(separator: "; "))
        case .stopped(let code): Sentence(what: "panelind stops with exit code \(code)")
        }
    }

    /// `g3`, or `g2 to g7` where it stands for several.
    private var name: String { generation.map { "g\($0)" } ?? "?" }

    private func ended(_ ending: Ending, _ restartIn: Duration?, _ rule: Rule?) -> Sentence {
        var what: String
        if let failure = ending.failure {
            what = failure.message.withoutControls
        } else {
            let stage =
                switch ending.cause {
                case .requested: "ended as requested"
                case .oom: "was killed by the kernel because memory ran out"
                case .startupDeadline: "was stopped because it did not become ready in time"
                case .liveness: "was stopped because its liveness probe failed"
                case .watchdog: "was stopped because it missed its watchdog"
                case .portInUse: "could not bind its port: the address is in use"
                case .exit, .signal, .notFound, .permanent:
                    ending.wasReady ? "ended, though nobody asked for it" : "ended before it was ready"
                }
            what = "worker \(name) \(stage): \(ending.text) after \(Times.span(ending.uptime))"
            if case .code(let code)? = ending.status, code > 128, code < 160, ending.cause != .requested {
                what +=
                    " (128 + \(Signal(number: code - 128)): a shell or wrapper reports its child's signal like this)"
            }
        }
        if count > 1, let first = firstGeneration {
            what += ". The \(count - 1) before it, since g\(first), ended the same way"
        }
        var sentence = Sentence(what: what, because: rule?.words, setting: rule?.setting)
        if rule == .successorStarts {
            sentence.decision = "its successor, which starts already, takes its place"
            sentence.because = nil
        } else if let restartIn {
            sentence.decision =
                restartIn == .zero
                ? "panelind starts the next one at once" : "panelind starts the next one in \(Times.span(restartIn))"
        } else if rule != nil, !ending.requested {
            sentence.decision = "panelind gives up and starts no other"
        }
        return sentence
    }

    private func failed(_ kind: ProbeKind, _ reason: String, _ beforeReady: Bool) -> Sentence {
        if kind == .connection {
            return Sentence(what: "worker \(name) refused a connection: \(reason)")
        }
        let times = count == 1 ? "" : count == 2 ? ", twice" : ", \(count) times so far"
        let what = beforeReady && kind == .readiness ? "is not ready yet" : "fails its \(kind.rawValue) probe"
        return Sentence(what: "worker \(name) \(what): \(reason)\(times)", setting: "probe.\(kind.rawValue)")
    }

    private func decided(_ rule: Rule) -> Sentence {
        switch rule {
        case .stopRequested(let by): Sentence(what: "\(by.withoutControls) asked panelind to stop")
        case .secondInterrupt: Sentence(what: "a second interrupt asked for an end at once")
        case .restartRequested: Sentence(what: "somebody asked for a restart of the worker")
        case .livenessFailed(let why, let times):
            Sentence(
                what: "worker \(name) failed its liveness probe \(times == 1 ? "once" : "\(times) times in a row") "
                    + "(\(why.withoutControls))",
                decision: "panelind stops it, to replace it", setting: rule.setting)
        case .watchdogMissed(let interval):
            Sentence(
                what: "worker \(name) "
                    + (interval.map { "sent no WATCHDOG=1 for \(Times.span($0))" } ?? "said WATCHDOG=trigger"),
                decision: "panelind stops it, to replace it", setting: rule.setting)
        case .startupDeadlinePassed(let deadline, let last):
            Sentence(
                what: "worker \(name) was not ready within \(Times.span(deadline))"
                    + (last.map { ": the last answer was \($0.withoutControls)" } ?? ""),
                decision: "panelind stops it", setting: rule.setting)
        case .graceOver(let grace):
            Sentence(
                what: "worker \(name) had not ended \(Times.span(grace)) after the stop signal",
                decision: "panelind killed it and what was left of its tree", setting: rule.setting)
        case .clockGap(let gap):
            Sentence(
                what: gap == .zero
                    ? "panelind was continued after a suspension"
                    : "panelind did not run for \(Times.span(gap)): the CPU was frozen, suspended or overloaded")
        default: Sentence(what: rule.words, setting: rule.setting)
        }
    }

    private func processes(_ survivors: [Survivor]) -> String {
        survivors.count == 1 ? "a process" : "\(survivors.count) processes"
    }

    private func list(_ survivors: [Survivor]) -> String {
        survivors.prefix(4).map { "\($0.pid) (\($0.command.withoutControls))" }.joined(separator: ", ")
            + (survivors.count > 4 ? " and \(survivors.count - 4) more" : "")
    }
}

extension Rule {
    /// The rule for people; the setting is named beside it.
    var words: String {
        switch self {
        case .backoff(let failures, let delay):
            failures == 1
                ? "the first failure waits \(Times.span(delay))"
                : "failure number \(failures) in a row waits \(Times.span(delay))"
        case .firstFailureAfterReady(let ready):
            "it had served for \(Times.span(ready)), and a first failure after that waits nothing"
        case .cleanEnd(let delay): "an end with a success code is no failure; the next start waits \(Times.span(delay))"
        case .limitExceeded(let limit): "that makes more than \(limit) failures in a row"
        case .permanentExitCode(let code): "exit code \(code) before readiness says that a restart cannot help"
        case .policyNever: "the policy is never to restart"
        case .cleanEndOnFailure: "the policy restarts failures only, and this end was clean"
        case .commandUnusable, .noProcess: "without a process there is nothing to supervise"
        default: plainText
        }
    }

    /// The core's words without the setting at their end.
    private var plainText: String {
        guard let setting, text.hasSuffix(" (\(setting))") else { return text }
        return String(text.dropLast(setting.count + 3))
    }
}

extension Survivor {
    /// Why KILL has not ended them, as `they sleep in the kernel`.
    public static func whyLeft(_ survivors: [Survivor]) -> String {
        survivors.allSatisfy(\.uninterruptible)
            ? "they sleep in the kernel" : "KILL does not end them, or panelind may not send it (CAP_KILL)"
    }
}
