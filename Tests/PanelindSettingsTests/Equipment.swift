//  Equipment.swift
//  A world in a dictionary, and short ways to load settings from it.
//  Nothing here touches the machine. Read before the other tests of this folder.

import PanelindCore
import Testing

@testable import PanelindSettings

/// Files by path: their bytes, and whether they can be executed.
struct FakeWorld: Sendable {
    var files: [String: String] = [
        "/usr/bin/uvicorn": "#!/usr/bin/python3\n", "/usr/bin/python3": "\u{7F}ELF\0", "/bin/sh": "\u{7F}ELF\0",
        "/bin/text": "echo hello\n", "/bin/orphan": "#!/opt/none -u\n", "/app/check": "\u{7F}ELF\0",
        "/app/plain": "not for running\0",
        "/secrets/key": "s3cr3t-value\n", "/secrets/empty": "\n",
    ]
    var directories: Set<String> = ["/", "/app", "/srv", "/secrets", "/bin", "/usr/bin"]
    var unexecutable: Set<String> = ["/app/plain", "/secrets/key"]
    var userID: UInt32 = 0
    var taken: Set<ListenAddress> = []

    var world: World {
        let (files, directories, unexecutable, taken) = (files, directories, unexecutable, taken)
        return World(
            read: { path, limit in
                if directories.contains(path) { return .failure(.directory) }
                guard let text = files[path] else { return .failure(.missing) }
                return text.utf8.count > limit ? .failure(.tooLarge) : .success(Array(text.utf8))
            },
            kind: { directories.contains($0) ? .directory : files[$0] != nil ? .file : .missing },
            isExecutable: { !unexecutable.contains($0) },
            head: { files[$0].map { Array($0.utf8.prefix(256)) } },
            user: { $0 == "app" ? UserEntry(name: "app", uid: 1000, gid: 1001, groups: [1001, 27]) : nil },
            group: { $0 == "www" ? 33 : nil },
            address: { $0 == "localhost" ? "127.0.0.1" : nil },
            bindProblem: { taken.contains($0) ? "Address already in use" : nil },
            userID: userID)
    }
}

/// Loads settings as the command line, a file and the environment would give them.
func load(
    file: String? = nil, _ overrides: String..., command: [String] = [], environment: [String: String] = [:],
    in world: FakeWorld = FakeWorld(), bindsPorts: Bool = false,
    changing change: (inout Surroundings) -> Void = { _ in }
) -> SettingsReport {
    var world = world
    if let file { world.files["/app/panelind.yaml"] = file }
    var environment = environment
    environment["PATH"] = environment["PATH"] ?? "/usr/bin:/bin"
    var surroundings = Surroundings(environment: environment, workingDirectory: "/app")
    change(&surroundings)
    let request = SettingsRequest(overrides: overrides, command: command, bindsPorts: bindsPorts)
    return loadSettings(request, surroundings, world.world)
}

/// A command in front mode that loads without an error.
let frontCommand = ["uvicorn", "--uds", "{socket}", "api:app"]

extension SettingsReport {
    var messages: [String] { problems.map(\.message) }

    /// The settings, or a failed expectation with the errors.
    func good(_ place: SourceLocation = #_sourceLocation) throws -> Settings {
        try #require(settings, "\(messages)", sourceLocation: place)
    }

    func line(_ key: String) -> EffectiveSetting? { effective.first { $0.key == key } }
}
