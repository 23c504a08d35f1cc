//  PrivateDirectory.swift
//  A directory for sockets that are nobody else's business, removed at the end.
//  Who may enter is decided here, because a worker may run as another user. Read before NotifySocket.swift.

import Glibc
import PanelindCore

/// A new directory with a random name; removed with its files when it goes.
public final class PrivateDirectory {
    /// Who besides us may use it.
    public enum Access: Hashable, Sendable {
        /// Mode 0700: our own user.
        case own
        /// Mode 0711: whoever knows a name in it; the notify socket of a worker that drops to a user.
        case searchable
        /// Mode 0770, owned by the worker's user with our group: the worker can make its `{socket}` in it, and a
        /// panelind without CAP_DAC_OVERRIDE can still connect.
        case worker(uid: UInt32)
    }

    /// Where it is: absolute where the variables are, at most 70 bytes, so that a socket's path fits.
    public let path: String
    /// The directory itself, whatever has its path by now: where it belongs to the worker's user, that may be a link to
    /// another directory, in which we, as root, would remove files that it may not. Locked as long as we live, so that
    /// a later panelind can tell it from one whose owner was killed; -1 once it is removed.
    private var number: Int32

    private init?(path: String) {
        self.path = path
        number = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard number >= 0 else {
            let error = errno
            rmdir(path)
            errno = error
            return nil
        }
        flock(number, LOCK_EX | LOCK_NB)
    }

    deinit { remove() }

    /// Makes one below the first usable of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, $TMPDIR, /tmp and /dev/shm.
    ///
    /// For another user's access a place is usable only if everyone may pass through its parents.
    public static func make(
        access: Access = .own, environment: (String) -> String? = { name in getenv(name).map { String(cString: $0) } }
    ) -> Result<PrivateDirectory, SystemError> {
        var refusal = SystemError(ENOENT)
        var places = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"].compactMap { name in
            // systemd separates several runtime directories by colons.
            environment(name).flatMap { $0.split(separator: ":").first }.map(String.init)
        }
        // The last one for a read-only root without a tmpfs: every container has it, in memory.
        places += ["/tmp", "/dev/shm"]
        for place in places where place.hasPrefix("/") && place.utf8.count <= 53 {
            if access != .own, !isSearchable(place) {
                refusal = SystemError(EACCES)
                continue
            }
            var template = Array("\(place)/panelind-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else {
                refusal = .last
                continue
            }
            let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard let directory = PrivateDirectory(path: path) else { return .failure(.last) }
            switch access {
            case .own: break
            case .searchable:
                guard chmod(path, 0o711) == 0 else { return .failure(.last) }
            case .worker(let uid):
                guard chown(path, uid, getegid()) == 0, chmod(path, 0o770) == 0 else { return .failure(.last) }
            }
            return .success(directory)
        }
        return .failure(refusal)
    }

    /// Removes the directory and the files and sockets in it; directories in it stay, and then it stays too.
    public func remove() {
        guard number >= 0 else { return }
        Self.remove(path, through: number) { _ in true }
        number = -1
    }

    /// Removes one file or socket in it.
    public func remove(_ name: String) { unlinkat(number, name, 0) }

    /// Removes what those left beside it that were killed before they could: directories of our name, owner and mode,
    /// older than a minute, that nobody has locked; of what is in them only sockets.
    ///
    /// - Parameter limit: the search ends after so long; the rest is a later one's.
    public func removeAbandonedBeside(within limit: Duration) {
        guard let slash = path.lastIndex(of: "/") else { return }
        let place = path[..<slash]
        guard let directory = opendir(String(place)) else { return }
        defer { closedir(directory) }
        let end = Clock.now() + limit
        while Clock.now() < end, let entry = readdir(directory) {
            let name = Self.name(of: entry)
            guard name.utf8.count == 15, name.hasPrefix("panelind-") else { continue }
            let path = "\(place)/\(name)"
            let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            var status = stat()
            // Younger, and it may have been made but not locked yet.
            if fstat(descriptor, &status) == 0, Self.isMade(like: status), time(nil) - status.st_mtim.tv_sec > 60,
                flock(descriptor, LOCK_EX | LOCK_NB) == 0
            {
                Self.remove(path, through: descriptor) { name in
                    var status = stat()
                    return fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0
                        && status.st_mode & S_IFMT == S_IFSOCK
                }
            } else {
                close(descriptor)
            }
        }
    }

    /// Has the owner and the mode that `make` gives.
    private static func isMade(like status: stat) -> Bool {
        switch status.st_mode & 0o7777 {
        case 0o700, 0o711: status.st_uid == geteuid()
        case 0o770: status.st_gid == getegid() && (status.st_uid == geteuid() || geteuid() == 0)
        default: false
        }
    }

    /// Removes what is chosen, and the directory if it is empty then; closes the descriptor.
    private static func remove(_ path: String, through descriptor: Int32, where isChosen: (String) -> Bool) {
        guard let directory = fdopendir(descriptor) else {
            close(descriptor)
            return
        }
        while let entry = readdir(directory) {
            let name = name(of: entry)
            // The two that every directory has are directories, which unlinkat refuses.
            if isChosen(name) { unlinkat(descriptor, name, 0) }
        }
        closedir(directory)
        rmdir(path)
    }

    private static func name(of entry: UnsafeMutablePointer<dirent>) -> String {
        withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// Whether every user may pass through the directory and all above it.
    private static func isSearchable(_ path: String) -> Bool {
        var part = ""
        for name in path.split(separator: "/") {
            part += "/" + name
            var status = stat()
            guard stat(part, &status) == 0, status.st_mode & 0o001 != 0 else { return false }
        }
        return true
    }
}
