//  main.swift
//  Blocks the signals before anything else can start a thread, then hands over to the command line.
//  Synchronous: an async main would wake once a second for ever.

import PanelindSystem

SignalSource.blockAll()
Panelind.main()
