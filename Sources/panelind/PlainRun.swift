//  PlainRun.swift
//  The one command line that a container starts with, read by hand: `panelind run [--config F] [--set K=V]… [-- COMMAND…]`.
//  Anything else is the argument parser's, which costs as much as the rest of the start together (docs/benchmarks.md).

import PanelindRuntime

/// The request of a plain `run`; nil for whatever has another word in it.
func plainRun(_ arguments: [String]) -> RunRequest? {
    guard arguments.count > 1, arguments[1] == "run" else { return nil }
    var request = RunRequest()
    var rest = arguments.dropFirst(2)
    while let word = rest.popFirst() {
        switch word {
        case "--":
            request.command = Array(rest)
            return request
        case "--config":
            // A second one, a missing value, or one that looks like an option is the parser's to judge.
            guard request.configPath == nil, let value = rest.popFirst(), !value.hasPrefix("-") else { return nil }
            request.configPath = value
        case "--set":
            guard let value = rest.popFirst(), !value.hasPrefix("-") else { return nil }
            request.overrides.append(value)
        default:
            return nil
        }
    }
    return request
}
