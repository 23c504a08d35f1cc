// swift-tools-version: 6.1
import PackageDescription

// Warnings are errors and unsafe constructs are visible: what the compiler can prove, it proves.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .unsafeFlags(["-warnings-as-errors"]),
]

// Edges allowed (Tests/PanelindCoreTests/HouseRules.swift holds them):
//   panelind -> Runtime -> all; HTTP's users -> HTTP; System -> CPanelindSystem; Settings -> CYaml; all -> Core.
let package = Package(
    name: "panelind",
    products: [
        .executable(name: "panelind", targets: ["panelind"]),
        .executable(name: "panelind-sim", targets: ["panelind-sim"]),
        .executable(name: "scripted-worker", targets: ["scripted-worker"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", exact: "1.8.2"),
    ],
    targets: [
        .target(name: "PanelindCore", swiftSettings: strict),
        .systemLibrary(name: "CYaml"),
        .target(name: "CPanelindSystem", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(
            name: "PanelindSettings", dependencies: ["PanelindCore", "CYaml"], swiftSettings: strict,
            linkerSettings: [.linkedLibrary(":libyaml.a")]),
        .target(name: "PanelindSystem", dependencies: ["PanelindCore", "CPanelindSystem"], swiftSettings: strict),
        .target(name: "PanelindOutput", dependencies: ["PanelindCore"], swiftSettings: strict),
        .target(
            name: "PanelindHTTP",
            dependencies: [
                "PanelindCore",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "PanelindFront",
            dependencies: [
                "PanelindCore", "PanelindHTTP",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "PanelindControl",
            dependencies: [
                "PanelindCore", "PanelindHTTP",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(name: "PanelindTelemetry", dependencies: ["PanelindCore"], swiftSettings: strict),
        .target(
            name: "PanelindRuntime",
            dependencies: [
                "PanelindCore", "PanelindSettings", "PanelindSystem", "PanelindOutput", "PanelindHTTP",
                "PanelindFront", "PanelindControl", "PanelindTelemetry",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "panelind",
            dependencies: [
                "PanelindRuntime", "PanelindSystem",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict,
            // 55,000 relocations less at every start, and a library less to find (docs/decisions/0005).
            linkerSettings: [
                .unsafeFlags(
                    ["-Xclang-linker", "-no-pie", "-Xclang-linker", "-static-libgcc"], .when(configuration: .release))
            ]),
        .target(name: "PanelindSimulation", dependencies: ["PanelindCore"], swiftSettings: strict),
        .executableTarget(name: "panelind-sim", dependencies: ["PanelindSimulation"], swiftSettings: strict),
        .target(
            name: "PanelindFuzz",
            dependencies: [
                "PanelindCore", "PanelindSettings", "PanelindSystem", "PanelindOutput", "PanelindHTTP", "PanelindFront",
                "PanelindControl",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .executableTarget(name: "panelind-fuzz", dependencies: ["PanelindFuzz"], swiftSettings: strict),
        .executableTarget(
            name: "scripted-worker", swiftSettings: strict),
        .testTarget(name: "PanelindCoreTests", dependencies: ["PanelindCore"], swiftSettings: strict),
        .testTarget(name: "PanelindSettingsTests", dependencies: ["PanelindSettings"], swiftSettings: strict),
        .testTarget(
            name: "PanelindSystemTests", dependencies: ["PanelindSystem", "CPanelindSystem"], swiftSettings: strict),
        .testTarget(name: "PanelindOutputTests", dependencies: ["PanelindOutput"], swiftSettings: strict),
        .testTarget(
            name: "PanelindHTTPTests",
            dependencies: [
                "PanelindHTTP",
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "PanelindControlTests",
            dependencies: [
                "PanelindControl",
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(name: "PanelindTelemetryTests", dependencies: ["PanelindTelemetry"], swiftSettings: strict),
        .testTarget(
            name: "PanelindFrontTests",
            dependencies: [
                "PanelindCore", "PanelindHTTP", "PanelindFront", "PanelindFuzz",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(name: "PanelindFuzzTests", dependencies: ["PanelindFuzz"], swiftSettings: strict),
        .testTarget(name: "PanelindSimulationTests", dependencies: ["PanelindSimulation"], swiftSettings: strict),
    ]
)
