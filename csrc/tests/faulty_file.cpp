#include "tests/faulty_file.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/file_system.h"
#include "tests/check.h"

namespace flexkv {

void FaultSchedule::add(FaultRule rule) {
  const std::lock_guard lock(mutex_);
  rules_.push_back({std::move(rule), 0, 0});
}

void FaultSchedule::clear() {
  const std::lock_guard lock(mutex_);
  rules_.clear();
}

std::uint64_t FaultSchedule::num_faults() const {
  const std::lock_guard lock(mutex_);
  return num_faults_;
}

std::uint64_t FaultSchedule::num_calls(FileCall kind, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return count_calls(kind, name);
}

void FaultSchedule::wait_calls(FileCall kind, const std::string& name, std::uint64_t count) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, patience, [&] { return count_calls(kind, name) >= count; }));
}

void FaultSchedule::hold(FileCall kind, std::string name) {
  const std::lock_guard lock(mutex_);
  held_.push_back({kind, std::move(name)});
}

void FaultSchedule::release() {
  const std::lock_guard lock(mutex_);
  held_.clear();
  changed_.notify_all();
}

void FaultSchedule::release(FileCall kind) {
  const std::lock_guard lock(mutex_);
  std::erase_if(held_, [kind](const Call& call) { return call.kind == kind; });
  changed_.notify_all();
}

void FaultSchedule::wait_held(std::uint64_t count) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, patience, [&] { return num_held_ >= count; }));
}

std::uint64_t FaultSchedule::num_held() const {
  const std::lock_guard lock(mutex_);
  return num_held_;
}

Fault FaultSchedule::enter(FileCall kind, const std::string& path) {
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

bool FaultSchedule::is_held(FileCall kind, const std::string& path) const {
  return std::ranges::any_of(
      held_, [&](const Call& call) { return call.kind == kind && path.find(call.path) != std::string::npos; });
}

std::uint64_t FaultSchedule::count_calls(FileCall kind, const std::string& name) const {
  return static_cast<std::uint64_t>(std::ranges::count_if(
      calls_, [&](const Call& call) { return call.kind == kind && call.path.find(name) != std::string::npos; }));
}

template <typename Real>
std::int64_t FaultyFile::move(FileCall kind, std::span<const iovec> buffers, Real&& real) {
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

std::int64_t FaultyFile::read(std::span<const iovec> to, std::uint64_t offset) {
  return move(FileCall::read, to, [&](std::span<const iovec> part) { return file_->read(part, offset); });
}

std::int64_t FaultyFile::write(std::span<const iovec> from, std::uint64_t offset) {
  return move(FileCall::write, from, [&](std::span<const iovec> part) { return file_->write(part, offset); });
}

int FaultyFile::sync() {
  const Fault fault = schedule_.enter(FileCall::sync, path_);
  return fault.error != 0 ? fault.error : file_->sync();
}

int FaultyFile::allocate(std::uint64_t size_bytes) {
  const Fault fault = schedule_.enter(FileCall::allocate, path_);
  return fault.error != 0 ? fault.error : file_->allocate(size_bytes);
}

std::int64_t FaultyFile::size() {
  const Fault fault = schedule_.enter(FileCall::size, path_);
  return fault.error != 0 ? -fault.error : file_->size();
}

std::unique_ptr<File> FaultyFileSystem::open(const std::string& path, OpenMode mode, int& error) {
  const Fault fault = schedule.enter(FileCall::open, path);
  if (fault.error != 0) {
    error = fault.error;
    return nullptr;
  }
  std::unique_ptr<File> file = real_.open(path, mode, error);
  if (file == nullptr) return nullptr;
  return std::make_unique<FaultyFile>(std::move(file), path, schedule, shows_descriptor_);
}

}  // namespace flexkv
