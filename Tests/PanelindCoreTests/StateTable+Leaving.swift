//  StateTable+Leaving.swift
//  What every kind of event does in every place of the machine: stops, ends, reloads.
//  Read StateTable.swift first.

extension StateTable {
    static let leaving = """
        [delay]
        exited            -> stopping: route refuse stopping 1s, g1 sweep KILL
        killNow           -> stopping: route refuse stopping 1s, cut g1, g1 sweep KILL
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [drain]
        exited            -> stopping: route refuse stopping 1s, g1 sweep KILL
        drained           -> stopping: route refuse stopping 1s, g1 TERM to group
        onlyStreamsLeft   -> stopping: route refuse stopping 1s, g1 TERM to group
        killNow           -> stopping: route refuse stopping 1s, cut g1, g1 sweep KILL
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [lastDrain]
        exited            -> stopping: route refuse stopping 1s, g1 sweep KILL
        drained           -> stopping: route refuse stopping 1s, g1 TERM to group
        onlyStreamsLeft   -> stopping: route refuse stopping 1s, g1 TERM to group
        killNow           -> stopping: route refuse stopping 1s, cut g1, g1 sweep KILL
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [signalled]
        exited            g1 sweep TERM but its group
        killNow           cut g1, g1 sweep KILL
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [killing]
        exited            g1 sweep KILL
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [sweepingInGrace]
        orphansReaped     g1 sweep
        sweptEmpty        g1 forget, flush
        killNow           g1 sweep KILL
        suspend           suspend self
        resume            drop idle
        [stopSweep]
        orphansReaped     g1 sweep KILL
        sweptEmpty        g1 forget, flush
        suspend           suspend self
        resume            drop idle
        [crashed]
        orphansReaped     g1 sweep KILL
        sweptEmpty        g1 forget
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        restart           -> starting:
        reload            -> starting: tell reloading
        reloadRefused     tell reloading, tell ready
        suspend           suspend self
        resume            drop idle
        [livenessFailed]
        exited            g1 sweep KILL
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, cut g1, g1 sweep KILL
        restart           -> starting:
        reload            -> starting: tell reloading
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [backoff]
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        restart           -> starting: g2 prepare
        reload            -> starting: tell reloading, g2 prepare
        reloadRefused     tell reloading, tell ready
        suspend           suspend self
        resume            drop idle
        [failed]
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        restart           -> starting: route hold, g3 prepare
        reload            -> starting: route hold, tell reloading, g3 prepare
        reloadRefused     tell reloading, tell ready
        suspend           suspend self
        resume            drop idle
        [restarting]
        exited            g1 sweep TERM but its group
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, cut g1, g1 sweep KILL
        reload            tell reloading
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle
        [trial]
        exited            -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 sweep KILL
        saysReady         g1 abandon readiness 2
        triggersWatchdog  -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 ABRT to leader
        stop              -> draining: route last call g1, tell ready, tell stopping, extend 9s, g1 abandon readiness
                          2, g1 abandon liveness 2, g2 abandon readiness 1, g2 TERM to group
        killNow           -> stopping: route refuse stopping 1s, tell ready, tell stopping, extend 9s, g1 abandon
                          readiness 2, g1 abandon liveness 2, g2 abandon readiness 1, g2 TERM to group, cut g1, g1
                          sweep KILL, cut g2, g2 sweep KILL
        restart           -> starting: route hold, tell ready, g2 abandon readiness 1, g2 TERM to group, g1 abandon
                          readiness 2, g1 abandon liveness 2, g1 TERM to group
        reload            tell reloading
        reloadRefused     tell reloading
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, g2 STOP to group, suspend self
        resume            g1 CONT to group, g2 CONT to group, drop idle, g1 abandon readiness 2, g1 abandon liveness
                          2, g2 abandon readiness 1
        [predecessor]
        exited            -> backoff: route hold, g2 abandon liveness 1, g2 sweep KILL
        triggersWatchdog  -> backoff: route hold, g2 abandon liveness 1, g2 ABRT to leader
        stop              -> draining: route last call g2, tell stopping, extend 9s, g2 abandon liveness 1
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g2 abandon liveness 1, cut
                          g2, g2 sweep KILL, cut g1, g1 sweep KILL
        restart           -> starting: route hold, g2 abandon liveness 1, g2 TERM to group
        reload            tell reloading
        reloadRefused     tell reloading, tell ready
        pass              g2 USR1 to leader
        suspend           g2 STOP to group, g1 STOP to group, suspend self
        resume            g2 CONT to group, g1 CONT to group, drop idle, g2 abandon liveness 1
        [policyEnd]
        orphansReaped     g1 sweep KILL
        sweptEmpty        -> stopped: g1 forget, flush
        suspend           suspend self
        resume            drop idle
        [flushing]
        suspend           suspend self
        resume            drop idle
        flushed           -> stopped: exit 0
        [exited]
        """
}
