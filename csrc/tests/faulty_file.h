// FaultyFileSystem and FaultyFile: a real file system behind a schedule of faults. A rule names calls by kind and by a
// part of the path, and says from which such call on, how often and with what they fail: with an error, or short. Calls
// are counted, and can be held at a gate. Thread safety: all of it, any thread.
#pragma once
#include <sys/uio.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/file_system.h"
#include "tests/check.h"

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

  void add(FaultRule rule) {
    const std::lock_guard lock(mutex_);
    rules_.push_back({std::move(rule), 0, 0});
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    rules_.clear();
  }
  // How many faults there were.
  [[nodiscard]] std::uint64_t num_faults() const {
    const std::lock_guard lock(mutex_);
    return num_faults_;
  }
  [[nodiscard]] std::uint64_t num_calls(FileCall kind, const std::string& name = "") const {
    const std::lock_guard lock(mutex_);
    return count_calls(kind, name);
  }
  // Until so many calls were made, those before this one counted.
  void wait_calls(FileCall kind, const std::string& name, std::uint64_t count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, patience, [&] { return count_calls(kind, name) >= count; }));
  }

  // Calls of that kind on such files wait in the middle of it until `release`.
  void hold(FileCall kind, std::string name = "") {
    const std::lock_guard lock(mutex_);
    held_.push_back({kind, std::move(name)});
  }
  void release() {
    const std::lock_guard lock(mutex_);
    held_.clear();
    changed_.notify_all();
  }
  void release(FileCall kind) {
    const std::lock_guard lock(mutex_);
    std::erase_if(held_, [kind](const Call& call) { return call.kind == kind; });
    changed_.notify_all();
  }
  // Until `count` calls wait at the gate.
  void wait_held(std::uint64_t count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, patience, [&] { return num_held_ >= count; }));
  }
  [[nodiscard]] std::uint64_t num_held() const {
    const std::lock_guard lock(mutex_);
    return num_held_;
  }

  // For the doubles: a call is made; what is to become of it.
  [[nodiscard]] Fault enter(FileCall kind, const std::string& path) {
    std::unique_lock lock(mutex_);
    calls_.push_back({kind, path});
    changed_.notify_all();
    if (is_held(kind, path)) {
      ++num_held_;
      CHECK(changed_.wait_for(lock, patience, [&] { return !is_held(kind, path); }));
      --num_held_;
    }
    std::optional<Fault> fault;
    for (Entry& entry : rules_) {
      if (entry.rule.kind != kind || path.find(entry.rule.name) == std::string::npos) continue;
      const std::uint64_t number = entry.num_seen++;
      const bool hits = number >= entry.rule.first && (number - entry.rule.first) % entry.rule.every == 0;
      if (fault || !hits || entry.num_hits == entry.rule.count) continue;
      ++entry.num_hits;
      ++num_faults_;
      fault = entry.rule.fault;
    }
    return fault.value_or(Fault{});
  }

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
  [[nodiscard]] bool is_held(FileCall kind, const std::string& path) const {
    return std::ranges::any_of(
        held_, [&](const Call& call) { return call.kind == kind && path.find(call.path) != std::string::npos; });
  }
  [[nodiscard]] std::uint64_t count_calls(FileCall kind, const std::string& name) const {
    return static_cast<std::uint64_t>(std::ranges::count_if(
        calls_, [&](const Call& call) { return call.kind == kind && call.path.find(name) != std::string::npos; }));
  }

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

  std::int64_t read(std::span<const iovec> to, std::uint64_t offset) override {
    return move(FileCall::read, to, [&](std::span<const iovec> part) { return file_->read(part, offset); });
  }
  std::int64_t write(std::span<const iovec> from, std::uint64_t offset) override {
    return move(FileCall::write, from, [&](std::span<const iovec> part) { return file_->write(part, offset); });
  }
  int sync() override {
    const Fault fault = schedule_.enter(FileCall::sync, path_);
    return fault.error != 0 ? fault.error : file_->sync();
  }
  int allocate(std::uint64_t size_bytes) override {
    const Fault fault = schedule_.enter(FileCall::allocate, path_);
    return fault.error != 0 ? fault.error : file_->allocate(size_bytes);
  }
  std::int64_t size() override {
    const Fault fault = schedule_.enter(FileCall::size, path_);
    return fault.error != 0 ? -fault.error : file_->size();
  }
  [[nodiscard]] int fd() const override { return shows_descriptor_ ? file_->fd() : -1; }
  [[nodiscard]] bool is_direct() const override { return file_->is_direct(); }

 private:
  // A direct file moves whole pages: those that the limit touches are moved, and the limit is what is said of it.
  template <typename Real>
  std::int64_t move(FileCall kind, std::span<const iovec> buffers, Real&& real) {
    const Fault fault = schedule_.enter(kind, path_);
    if (fault.error != 0) return -fault.error;
    if (fault.limit_bytes == Fault::all) return real(buffers);
    constexpr std::uint64_t page_bytes = 4096;
    std::uint64_t left = fault.limit_bytes;
    if (is_direct()) left = (left + page_bytes - 1) / page_bytes * page_bytes;
    std::vector<iovec> part;
    for (iovec buffer : buffers) {
      if (left == 0) break;
      buffer.iov_len = std::min<std::size_t>(buffer.iov_len, left);
      left -= buffer.iov_len;
      part.push_back(buffer);
    }
    if (part.empty()) return 0;
    return std::min(real(part), static_cast<std::int64_t>(fault.limit_bytes));
  }

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

  std::unique_ptr<File> open(const std::string& path, OpenMode mode, int& error) override {
    const Fault fault = schedule.enter(FileCall::open, path);
    if (fault.error != 0) {
      error = fault.error;
      return nullptr;
    }
    std::unique_ptr<File> file = real_.open(path, mode, error);
    if (file == nullptr) return nullptr;
    return std::make_unique<FaultyFile>(std::move(file), path, schedule, shows_descriptor_);
  }

 private:
  FileSystem& real_;
  bool shows_descriptor_;
};

}  // namespace flexkv
