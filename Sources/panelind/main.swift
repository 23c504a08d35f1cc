//  main.swift
//  Blocks the signals, reads the command line, exits. Synchronous: an async main would wake once a second for ever.

import PanelindSystem

SignalSource.blockAll()
Panelind.main()
