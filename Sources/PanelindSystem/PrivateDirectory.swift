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
    /// Which one it is: what has its path may be another by now, where it belongs to the worker's user.
    private let device: UInt64
    private let inode: UInt64

    private init?(path: String) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        self.path = path
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
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
        guard let number = open() else { return }
        guard let directory = fdopendir(number) else {
            close(number)
            return
        }
        while let entry = readdir(directory) {
            withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: pointer.pointee)) {
                    // The two that every directory has are directories, which unlinkat refuses.
                    _ = unlinkat(number, $0, 0)
                }
            }
        }
        closedir(directory)
        rmdir(path)
    }

    /// Removes one file or socket in it.
    public func remove(_ name: String) {
        guard let number = open() else { return }
        unlinkat(number, name, 0)
        close(number)
    }

    /// The directory itself, nil where its path leads elsewhere: its owner, the worker's user, may have put a link to
    /// another directory there, in which we, as root, would remove files that it may not.
    private func open() -> Int32? {
        let number = Glibc.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard number >= 0 else { return nil }
        var status = stat()
        guard fstat(number, &status) == 0, UInt64(status.st_dev) == device, UInt64(status.st_ino) == inode else {
            close(number)
            return nil
        }
        return number
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
