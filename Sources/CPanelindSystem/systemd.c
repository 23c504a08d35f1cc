// systemd.c
// libsystemd, loaded when it is needed: linked it would cost 3.9 MB of every run, and start nowhere without it.
// Each pointer has the type of the header's prototype. PanelindSystem/ServiceManager.swift decides when.

#define _GNU_SOURCE
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "CPanelindSystem.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

// The version of the interface that Debian 11 and everything since has.
static const char library_name[] = "libsystemd.so.0";

static __typeof__(sd_notify) *notify;
static __typeof__(sd_notify_barrier) *notify_barrier;
static __typeof__(sd_watchdog_enabled) *watchdog_enabled;
static __typeof__(sd_journal_sendv) *journal_sendv;
static __typeof__(sd_booted) *booted;

int panelind_systemd_load(char *why, size_t capacity) {
    void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(why, capacity, "%s", error ? error : library_name);
        return -ENOENT;
    }
    // POSIX lets an object pointer be stored as a function's (dlsym(3)).
#define LOAD(name) *(void **)&name = dlsym(library, "sd_" #name)
    LOAD(notify);
    LOAD(notify_barrier);
    LOAD(watchdog_enabled);
    LOAD(journal_sendv);
    LOAD(booted);
#undef LOAD
    if (notify && notify_barrier && watchdog_enabled && journal_sendv && booted) return 0;
    snprintf(why, capacity, "%s is too old: it has not all of the functions needed", library_name);
    notify = NULL;
    journal_sendv = NULL;
    return -ENOSYS;
}

int panelind_systemd_notify(const char *text) { return notify ? notify(0, text) : -ENOSYS; }

int panelind_systemd_barrier(uint64_t microseconds) {
    return notify ? notify_barrier(0, microseconds) : -ENOSYS;
}

int panelind_systemd_watchdog(uint64_t *microseconds) { return notify ? watchdog_enabled(0, microseconds) : -ENOSYS; }

int panelind_systemd_journal(const struct iovec *fields, int count) {
    return journal_sendv ? journal_sendv(fields, count) : -ENOSYS;
}

int panelind_systemd_booted(void) { return notify ? booted() : -ENOSYS; }
