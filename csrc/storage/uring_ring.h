// UringRing: the two rings that a process shares with the kernel, and the calls on them. Knows nothing of files and
// requests.
//
// A queued entry is ours until `enter` has handed it over: `withdraw` takes it back. Thread safety: none. The kernel
// may bind the ring to the thread that first calls `bind`; from then on that thread makes all the calls.
#pragma once
#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "storage/uring_syscalls.h"
#include "transfer/socket.h"

namespace flexkv {

class UringRing {
 public:
  // Room for `entries` that are queued and twice as many that have completed. Throws std::system_error where the kernel
  // refuses.
  UringRing(UringSyscalls& system, unsigned entries);
  ~UringRing();
  UringRing(const UringRing&) = delete;
  UringRing& operator=(const UringRing&) = delete;

  // Before the first `enter`, by the thread that will call it. 0 or an errno.
  [[nodiscard]] int bind();

  void push(const uring::Sqe& sqe);  // REQUIRES: num_queued() < entries
  [[nodiscard]] unsigned num_queued() const;
  [[nodiscard]] std::optional<uring::Sqe> withdraw();  // the last one queued
  [[nodiscard]] std::optional<uring::Cqe> pop();       // one that has completed

  // Hands the first `to_submit` queued over (fewer when the kernel wants no more) and, when `timeout` is above zero,
  // sleeps until something has completed. 0 or an errno; the end of the timeout is 0.
  [[nodiscard]] int enter(unsigned to_submit, std::chrono::nanoseconds timeout);

  [[nodiscard]] int register_files(std::span<const int> fds);
  [[nodiscard]] int register_buffer_table(unsigned size);  // all empty
  [[nodiscard]] int register_buffer(unsigned index, const iovec& memory);

 private:
  struct Mapping {
    void* address = nullptr;
    std::size_t bytes = 0;
  };
  void set_up(unsigned entries);
  [[nodiscard]] Mapping map(std::size_t bytes, std::uint64_t offset) const;
  static void unmap(const Mapping& mapping);
  [[nodiscard]] std::uint32_t* word(std::uint32_t offset) const;
  [[nodiscard]] int sleep(std::chrono::nanoseconds timeout);

  UringSyscalls& system_;
  uring::Params params_ = {};
  Fd fd_;
  Mapping rings_;
  Mapping sqes_;
};

}  // namespace flexkv
