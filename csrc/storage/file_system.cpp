// The operating system's files behind the seam.
#include "storage/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <limits>
#include <utility>

#include "transfer/socket.h"

namespace flexkv {
namespace {

constexpr std::uint64_t max_file_bytes = std::numeric_limits<off_t>::max();
// An interrupted allocation starts over, and some file systems give back what it has: pieces get done.
constexpr std::uint64_t allocation_piece_bytes = std::uint64_t{1} << 30;
constexpr std::size_t probe_bytes = 4096;

// The call's value, or -errno; made again as long as a signal interrupts it.
template <typename Call>
std::int64_t uninterrupted(const Call& call) {
  std::int64_t value = 0;
  do value = static_cast<std::int64_t>(call());
  while (value < 0 && errno == EINTR);
  return value < 0 ? -static_cast<std::int64_t>(errno) : value;
}

template <typename Call>
int error_of(const Call& call) {
  const std::int64_t value = uninterrupted(call);
  return value < 0 ? static_cast<int>(-value) : 0;
}

int vector_length(std::span<const iovec> buffers) {
  return static_cast<int>(std::min<std::size_t>(buffers.size(), IOV_MAX));
}

class PosixFile final : public File {
 public:
  PosixFile(Fd fd, bool is_direct) : fd_(std::move(fd)), is_direct_(is_direct) {}

  std::int64_t read(std::span<const iovec> to, std::uint64_t offset) override {
    if (offset > max_file_bytes) return -EINVAL;
    return uninterrupted([&] { return ::preadv(fd_.get(), to.data(), vector_length(to), static_cast<off_t>(offset)); });
  }
  std::int64_t write(std::span<const iovec> from, std::uint64_t offset) override {
    if (offset > max_file_bytes) return -EFBIG;
    return uninterrupted(
        [&] { return ::pwritev(fd_.get(), from.data(), vector_length(from), static_cast<off_t>(offset)); });
  }
  int sync() override {
    return error_of([this] { return ::fdatasync(fd_.get()); });
  }
  int allocate(std::uint64_t size_bytes) override;
  std::int64_t size() override {
    struct stat status = {};
    if (::fstat(fd_.get(), &status) != 0) return -static_cast<std::int64_t>(errno);
    return status.st_size;
  }
  [[nodiscard]] int fd() const override { return fd_.get(); }
  [[nodiscard]] bool is_direct() const override { return is_direct_; }

  // Some file systems take O_DIRECT and refuse what is aligned to 4 KiB. That shows at the first page, if there is one.
  int settle_direct();

 private:
  int truncate(std::uint64_t size_bytes) {
    return error_of([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)); });
  }
  int allocate_blocks(std::uint64_t size_bytes);

  Fd fd_;
  bool is_direct_;
};

int PosixFile::allocate(std::uint64_t size_bytes) {
  if (size_bytes > max_file_bytes) return EFBIG;
  const std::int64_t before = size();
  if (before < 0) return static_cast<int>(-before);
  int error = allocate_blocks(size_bytes);
  if (error == 0 || error == EOPNOTSUPP) error = truncate(size_bytes);
  if (error != 0) {
    (void)truncate(static_cast<std::uint64_t>(before));  // gives back what was had; the first error is the one to tell
    return error;
  }
  return settle_direct();
}

int PosixFile::allocate_blocks(std::uint64_t size_bytes) {
  int error = 0;
  for (std::uint64_t at = 0; at < size_bytes && error == 0; at += allocation_piece_bytes) {
    const auto length = static_cast<off_t>(std::min(allocation_piece_bytes, size_bytes - at));
    error = error_of([&] { return ::fallocate(fd_.get(), 0, static_cast<off_t>(at), length); });
  }
  return error;
}

int PosixFile::settle_direct() {
  if (!is_direct_) return 0;
  alignas(probe_bytes) std::array<std::byte, probe_bytes> page;
  const iovec buffer = {page.data(), page.size()};
  if (read({&buffer, 1}, 0) != -EINVAL) return 0;  // another error is for those who want the bytes
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd_.get(), F_SETFL, flags & ~O_DIRECT) != 0) return errno;
  is_direct_ = false;
  return 0;
}

class PosixFileSystem final : public FileSystem {
 public:
  std::unique_ptr<File> open(const std::string& path, OpenMode mode, int& error) override {
    error = 0;
    bool is_direct = mode == OpenMode::direct;
    Fd fd = open_regular(path, is_direct ? O_DIRECT : 0, error);
    if (is_direct && error == EINVAL) {
      is_direct = false;
      fd = open_regular(path, 0, error);
    }
    if (error != 0) return nullptr;
    auto file = std::make_unique<PosixFile>(std::move(fd), is_direct);
    error = file->settle_direct();
    if (error != 0) return nullptr;
    return file;
  }

 private:
  static Fd open_regular(const std::string& path, int extra_flags, int& error) {
    // O_NONBLOCK: a FIFO or a device by that name must not hold us up.
    constexpr int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    constexpr mode_t owner_only = 0600;
    const std::int64_t opened = uninterrupted([&] { return ::open(path.c_str(), flags | extra_flags, owner_only); });
    if (opened < 0) {
      error = static_cast<int>(-opened);
      return {};
    }
    Fd fd(static_cast<int>(opened));
    struct stat status = {};
    error = error_of([&] { return ::fstat(fd.get(), &status); });
    if (error == 0 && !S_ISREG(status.st_mode)) error = EOPNOTSUPP;
    // io_uring would answer EAGAIN in place of waiting for the disk.
    if (error == 0) error = error_of([&] { return ::fcntl(fd.get(), F_SETFL, extra_flags); });
    return fd;
  }
};

}  // namespace

FileSystem& posix_file_system() {
  static PosixFileSystem files;
  return files;
}

}  // namespace flexkv
