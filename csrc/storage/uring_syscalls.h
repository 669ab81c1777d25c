// UringSyscalls: the system calls of io_uring as a seam, so that tests can let each of them fail.
//
// All return a negative errno on failure, as the kernel does, and make the call once. Thread safety: as the kernel's.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "storage/uring_abi.h"

namespace flexkv {

class UringSyscalls {
 public:
  UringSyscalls() = default;
  virtual ~UringSyscalls() = default;
  UringSyscalls(const UringSyscalls&) = delete;
  UringSyscalls& operator=(const UringSyscalls&) = delete;

  [[nodiscard]] virtual int setup(unsigned entries, uring::Params& params);  // a descriptor, close-on-exec
  [[nodiscard]] virtual int enter(int ring_fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                                  const void* arg, std::size_t arg_bytes);
  [[nodiscard]] virtual int register_(int ring_fd, unsigned opcode, const void* arg, unsigned num_args);
  // Sleeps until `fd` is readable: 1; 0 after `timeout`.
  [[nodiscard]] virtual int poll(int fd, std::chrono::nanoseconds timeout);
};

}  // namespace flexkv
