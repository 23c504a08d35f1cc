//  main.swift
//  A worker that obeys a script given as arguments, so that a test says in one line what its worker does.
//  Read Language.swift first: every step, with its arguments.

import Glibc

// What was inherited is looked at before anything of ours is opened, or it would be in the picture.
let inherited = Inheritance.now()

// Linked dynamically, Swift's runtime catches these, prints a backtrace and, where the signal came from outside, lives
// on. A worker dies as an ordinary one does.
for number in [SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] {
    var action = sigaction()
    sigaction(number, nil, &action)
    // What the runtime took was the default before; an inherited SIG_IGN it leaves alone, and so do we.
    if action.sa_flags & SA_SIGINFO != 0 { signal(number, SIG_DFL) }
}

let arguments = Array(CommandLine.arguments.dropFirst())

if arguments == ["--help"] || arguments == ["help"] {
    writeAll(1, Array(language.utf8))
    exit(0)
}

do {
    let script = try Parser.script(arguments)
    let worker = Worker(script: script, inherited: inherited)
    worker.run()
} catch {
    complain("\(error); `scripted-worker help` lists the steps")
    exit(64)
}
