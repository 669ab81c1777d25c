// FileSystem and File: what the SSD tier asks of the operating system, as a seam. Tests put a file system behind it
// that fails, shortens, drops or reorders what it is asked for (csrc/tests).
//
// Errors are values: an errno, or its negative where a count is returned. EINTR never comes back: it is tried again.
// Thread safety: FileSystem any thread; a File's read and write from any thread, several at once; its other members are
// the owner's.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace flexkv {

class File {
 public:
  File() = default;
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // preadv(2) and pwritev(2): bytes moved, or -errno. Short counts are possible; 0 from a read is the end of the file.
  [[nodiscard]] virtual std::int64_t read(std::span<const iovec> to, std::uint64_t offset) = 0;
  [[nodiscard]] virtual std::int64_t write(std::span<const iovec> from, std::uint64_t offset) = 0;
  [[nodiscard]] virtual int sync() = 0;  // fdatasync(2); 0 or an errno
  // Makes it exactly that long, with all of its blocks allocated: ENOSPC is found here and not by a later write. Where
  // the file system has no fallocate (EOPNOTSUPP), it is only made that long. 0 or an errno; may take long.
  [[nodiscard]] virtual int allocate(std::uint64_t size_bytes) = 0;
  [[nodiscard]] virtual std::int64_t size() = 0;     // or -errno
  [[nodiscard]] virtual int fd() const = 0;          // -1: only read and write reach it, io_uring cannot be used
  [[nodiscard]] virtual bool is_direct() const = 0;  // O_DIRECT is in force: addresses, offsets and lengths in 4 KiB.
                                                     // `allocate` may find that it cannot be, and let it go
};

enum class OpenMode : std::uint8_t {
  buffered,
  direct,  // O_DIRECT where the file system has it, else buffered
};

class FileSystem {
 public:
  FileSystem() = default;
  virtual ~FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  // Opens for reading and writing, close-on-exec; creates it, readable by its owner alone, when it is not there. It
  // must be a regular file (EOPNOTSUPP; EISDIR; a link is not followed: ELOOP). nullptr and an errno in `error` when it
  // cannot be had.
  [[nodiscard]] virtual std::unique_ptr<File> open(const std::string& path, OpenMode mode, int& error) = 0;
};

[[nodiscard]] FileSystem& posix_file_system();

}  // namespace flexkv
