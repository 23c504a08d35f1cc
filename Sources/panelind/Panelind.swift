//  Panelind.swift
//  The command line of CONTRACT section 1; each command has its own file.
//  Usage errors go to standard error and end with 64.

import ArgumentParser
import Glibc
import PanelindRuntime

struct Panelind: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "panelind",
        abstract: "Runs one worker, restarts it, and says truly whether it is ready.",
        discussion: """
            panelind run -- uvicorn api:app --fd {fd}

            panelind owns the listening socket, so that no connection is refused while the worker restarts.
            /health and /ready are on 127.0.0.1:8081. Settings: panelind.yaml, PANELIND_…, or --set KEY=VALUE.
            """,
        version: panelindVersion,
        subcommands: [
            Run.self, Check.self, Status.self, Why.self, Logs.self, Restart.self, Reload.self, Stop.self, Probe.self,
        ])

    /// Parses and runs; usage errors end with 64 (sysexits(3)).
    static func main() {
        do {
            // The parser's own `help` answers with the overview, and 0, whatever it is asked about.
            let words = CommandLine.arguments.dropFirst()
            if words.first == "help", let name = words.dropFirst().first, name != "help", !name.hasPrefix("-"),
                !configuration.subcommands.contains(where: { "\($0)".lowercased() == name })
            {
                throw ValidationError("cannot help with '\(name)': there is no such command")
            }
            var command = try parseAsRoot()
            try command.run()
        } catch {
            exit(withError: error)
        }
    }
}

/// What `run` and `check` share.
struct SettingsOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The configuration file.", valueName: "file"))
    var config: String?

    @Option(
        name: .customLong("set"), parsing: .singleValue,
        help: ArgumentHelp("One setting; repeatable. Lists and maps are YAML flow.", valueName: "key=value"))
    var overrides: [String] = []

    @Argument(parsing: .postTerminator, help: ArgumentHelp("The worker's command.", valueName: "command"))
    var command: [String] = []

    var request: RunRequest { RunRequest(configPath: config, overrides: overrides, command: command) }
}

/// Writes to standard error, which has usage and configuration errors only.
func complain(_ text: String) {
    _ = text.withCString { write(2, $0, strlen($0)) }
}
