// FaultyFileSystem and FaultyFile: a real file system behind a schedule of faults. A rule names calls by kind and by a
// part of the path, and says from which such call on, how often and with what they fail: with an error, or short. Calls
// are counted, and can be held at a gate. Thread safety: all of it, any thread.
#pragma once
#include <sys/uio.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/file_system.h"

namespace flexkv {

enum class FileCall : std::uint8_t { open, read, write, sync, allocate, size };

struct Fault {
  static constexpr std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
  int error = 0;                    // nothing is done, and this is the answer
  std::uint64_t limit_bytes = all;  // read, write: no more than that is said to be moved
};

// Calls of `kind` on files whose path has `name` in it, numbered from 0 since the rule was made: from number `first` on
// every `every`-th one, `count` of them.
struct FaultRule {
  FileCall kind = FileCall::read;
  std::string name;
  Fault fault;
  std::uint64_t first = 0;
  std::uint64_t count = 1;
  std::uint64_t every = 1;
};

class FaultSchedule {
 public:
  static constexpr std::uint64_t forever = std::numeric_limits<std::uint64_t>::max();
  void add(FaultRule rule);
  void clear();
  // How many faults there were.
  [[nodiscard]] std::uint64_t num_faults() const;
  [[nodiscard]] std::uint64_t num_calls(FileCall kind, const std::string& name = "") const;
  // Until so many calls were made, those before this one counted.
  void wait_calls(FileCall kind, const std::string& name, std::uint64_t count);

  // Calls of that kind on such files wait in the middle of it until `release`.
  void hold(FileCall kind, std::string name = "");
  void release();
  void release(FileCall kind);
  // Until `count` calls wait at the gate.
  void wait_held(std::uint64_t count);
  [[nodiscard]] std::uint64_t num_held() const;

  // For the doubles: a call is made; what is to become of it.
  [[nodiscard]] Fault enter(FileCall kind, const std::string& path);

 private:
  static constexpr std::chrono::seconds patience{60};
  struct Entry {
    FaultRule rule;
    std::uint64_t num_seen;
    std::uint64_t num_hits;
  };
  struct Call {
    FileCall kind;
    std::string path;
  };
  [[nodiscard]] bool is_held(FileCall kind, const std::string& path) const;
  [[nodiscard]] std::uint64_t count_calls(FileCall kind, const std::string& name) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry> rules_;
  std::vector<Call> calls_;
  std::vector<Call> held_;
  std::uint64_t num_held_ = 0;
  std::uint64_t num_faults_ = 0;
};

class FaultyFile final : public File {
 public:
  FaultyFile(std::unique_ptr<File> file, std::string path, FaultSchedule& schedule, bool shows_descriptor)
      : file_(std::move(file)), path_(std::move(path)), schedule_(schedule), shows_descriptor_(shows_descriptor) {}

  std::int64_t read(std::span<const iovec> to, std::uint64_t offset) override;
  std::int64_t write(std::span<const iovec> from, std::uint64_t offset) override;
  int sync() override;
  int allocate(std::uint64_t size_bytes) override;
  std::int64_t size() override;
  [[nodiscard]] int fd() const override { return shows_descriptor_ ? file_->fd() : -1; }
  [[nodiscard]] bool is_direct() const override { return file_->is_direct(); }

 private:
  // A direct file moves whole pages: those that the limit touches are moved, and the limit is what is said of it.
  template <typename Real>
  std::int64_t move(FileCall kind, std::span<const iovec> buffers, Real&& real);

  std::unique_ptr<File> file_;
  std::string path_;
  FaultSchedule& schedule_;
  bool shows_descriptor_;
};

// `shows_descriptor`: io_uring works on the files, and passes the schedule by. REQUIRES: outlives its files.
class FaultyFileSystem final : public FileSystem {
 public:
  explicit FaultyFileSystem(FileSystem& real = posix_file_system(), bool shows_descriptor = false)
      : real_(real), shows_descriptor_(shows_descriptor) {}

  FaultSchedule schedule;

  std::unique_ptr<File> open(const std::string& path, OpenMode mode, int& error) override;

 private:
  FileSystem& real_;
  bool shows_descriptor_;
};

}  // namespace flexkv
