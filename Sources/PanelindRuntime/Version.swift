//  Version.swift
//  The version of this program, as `--version`, the health bodies and the records say it.
//  Changed by hand with CHANGELOG.md, at a release.

/// The version, by SemVer.
public let panelindVersion = "0.1.0"
