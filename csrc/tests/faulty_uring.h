// FaultyUring: the real system calls of io_uring, behind faults that a test chooses. It maps the rings a second time:
// entries are changed before the kernel sees them, and answers before the engine does.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "storage/uring_syscalls.h"
#include "tests/check.h"

namespace flexkv {

struct EntryFault {
  int error = 0;                  // the answer; the kernel does nothing. 0 and no limit: it answers 0 bytes
  std::uint32_t limit_bytes = 0;  // above 0: the kernel moves no more than that
};

// What the double does and has seen. The test and the double, on one thread, share it.
struct UringFaults {
  std::deque<int> setup_errors;                         // of the calls to come; 0: the real one
  std::uint32_t unknown_setup = 0;                      // flags that "this kernel" answers with EINVAL
  std::uint32_t hidden_features = 0;                    // of "this kernel"
  std::function<int()> enter_error = [] { return 0; };  // asked before each call: 0 or an errno
  std::function<unsigned()> max_consumed = [] { return std::numeric_limits<unsigned>::max(); };
  std::function<std::optional<EntryFault>()> entry_fault = [] { return std::nullopt; };  // asked for each read or write
  std::function<int(unsigned opcode)> register_error = [](unsigned) { return 0; };
  std::uint64_t num_enters = 0;
  std::uint64_t num_polls = 0;
  std::uint64_t num_entries = 0;        // reads and writes the kernel was given
  std::uint64_t num_fixed_entries = 0;  // of those, on registered memory
  std::uint64_t num_fixed_files = 0;
  std::uint64_t num_entry_faults = 0;
};

class FaultyUring final : public UringSyscalls {
 public:
  explicit FaultyUring(std::shared_ptr<UringFaults> faults) : faults_(std::move(faults)) {}
  ~FaultyUring() override {
    if (rings_ != nullptr) ::munmap(rings_, rings_bytes_);
    if (sqes_ != nullptr) ::munmap(sqes_, params_.sq_entries * sizeof(uring::Sqe));
  }

  int setup(unsigned entries, uring::Params& params) override {
    if (!faults_->setup_errors.empty()) {
      const int error = faults_->setup_errors.front();
      faults_->setup_errors.pop_front();
      if (error != 0) return -error;
    }
    if ((params.flags & faults_->unknown_setup) != 0) return -EINVAL;
    const int fd = UringSyscalls::setup(entries, params);
    if (fd < 0) return fd;
    params_ = params;
    params.features &= ~faults_->hidden_features;
    map_rings(fd);
    return fd;
  }

  int enter(int ring_fd, unsigned to_submit, unsigned min_complete, unsigned flags, const void* arg,
            std::size_t arg_bytes) override {
    ++faults_->num_enters;
    if (const int error = faults_->enter_error(); error != 0) return -error;
    if (const unsigned limit = faults_->max_consumed(); limit < to_submit) {
      to_submit = limit;
      min_complete = 0;  // the kernel does not wait when it has not taken all
    }
    for (unsigned i = 0; i < to_submit; ++i) change_entry(i);
    const int result = UringSyscalls::enter(ring_fd, to_submit, min_complete, flags, arg, arg_bytes);
    change_answers();
    return result;
  }

  int register_(int ring_fd, unsigned opcode, const void* arg, unsigned num_args) override {
    if (const int error = faults_->register_error(opcode); error != 0) return -error;
    return UringSyscalls::register_(ring_fd, opcode, arg, num_args);
  }

  int poll(int fd, std::chrono::nanoseconds timeout) override {
    ++faults_->num_polls;
    return UringSyscalls::poll(fd, timeout);
  }

 private:
  void map_rings(int fd) {
    rings_bytes_ = std::max(params_.sq_off.array + params_.sq_entries * sizeof(std::uint32_t),
                            params_.cq_off.cqes + params_.cq_entries * sizeof(uring::Cqe));
    constexpr int protection = PROT_READ | PROT_WRITE;
    rings_ = ::mmap(nullptr, rings_bytes_, protection, MAP_SHARED, fd, uring::mmap_rings);
    sqes_ = ::mmap(nullptr, params_.sq_entries * sizeof(uring::Sqe), protection, MAP_SHARED, fd, uring::mmap_sqes);
    CHECK(rings_ != MAP_FAILED && sqes_ != MAP_FAILED);
  }
  [[nodiscard]] std::uint32_t word(std::uint32_t offset) const {
    return std::atomic_ref(*at<std::uint32_t>(offset)).load(std::memory_order_acquire);
  }
  template <typename T>
  [[nodiscard]] T* at(std::uint32_t offset) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(rings_) + offset);
  }

  // An entry that was not consumed is met again: it is changed once.
  void change_entry(unsigned number) {
    const std::uint32_t position = word(params_.sq_off.head) + number;
    if (num_changed_ != 0 && static_cast<std::int32_t>(position - next_to_change_) < 0) return;
    ++num_changed_;
    next_to_change_ = position + 1;
    uring::Sqe& sqe = static_cast<uring::Sqe*>(sqes_)[position & (params_.sq_entries - 1)];
    const bool is_fixed = sqe.opcode == uring::op_read_fixed || sqe.opcode == uring::op_write_fixed;
    if (!is_fixed && sqe.opcode != uring::op_readv && sqe.opcode != uring::op_writev) return;
    ++faults_->num_entries;
    if (is_fixed) ++faults_->num_fixed_entries;
    if ((sqe.flags & uring::sqe_fixed_file) != 0) ++faults_->num_fixed_files;
    const std::optional<EntryFault> fault = faults_->entry_fault();
    if (!fault) return;
    ++faults_->num_entry_faults;
    if (fault->limit_bytes == 0) {
      sqe.opcode = uring::op_nop;
      sqe.flags = 0;
      sqe.len = 0;
      sqe.off = sqe.addr = 0;
      sqe.op_flags = 0;
      answers_[sqe.user_data] = -fault->error;
    } else if (is_fixed) {
      sqe.len = std::min(sqe.len, fault->limit_bytes);
    } else {
      shorten(sqe, fault->limit_bytes);
    }
  }

  void shorten(uring::Sqe& sqe, std::size_t left) {
    const auto* const given = reinterpret_cast<const iovec*>(sqe.addr);
    std::vector<iovec>& part = shortened_[sqe.user_data];
    part.clear();
    for (std::uint32_t i = 0; i < sqe.len && left > 0; ++i) {
      part.push_back({given[i].iov_base, std::min(given[i].iov_len, left)});
      left -= part.back().iov_len;
    }
    sqe.addr = reinterpret_cast<std::uintptr_t>(part.data());
    sqe.len = static_cast<std::uint32_t>(part.size());
  }

  void change_answers() {
    const std::uint32_t tail = word(params_.cq_off.tail);
    for (std::uint32_t i = word(params_.cq_off.head); i != tail; ++i) {
      uring::Cqe& cqe = at<uring::Cqe>(params_.cq_off.cqes)[i & (params_.cq_entries - 1)];
      const auto answer = answers_.find(cqe.user_data);
      if (answer == answers_.end()) continue;
      cqe.res = answer->second;
      answers_.erase(answer);
    }
  }

  std::shared_ptr<UringFaults> faults_;
  uring::Params params_ = {};
  void* rings_ = nullptr;
  std::size_t rings_bytes_ = 0;
  void* sqes_ = nullptr;
  std::uint64_t num_changed_ = 0;
  std::uint32_t next_to_change_ = 0;
  std::map<std::uint64_t, std::int32_t> answers_;  // by user_data; each is in flight once
  std::map<std::uint64_t, std::vector<iovec>> shortened_;
};

}  // namespace flexkv
