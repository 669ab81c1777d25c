// DiskIo: reads and writes of whole extents, many in flight, for one thread. Two implementations, on io_uring and on a
// few threads, under one contract (csrc/tests/disk_io_contract.h).
//
// Contract
//  1. Every submitted request has exactly one result, whatever happens; results may come in any order.
//  2. Short reads and writes are gone on with. The end of the file within a request is an error (ENODATA).
//  3. A result is all the bytes, or an errno. EINTR and EAGAIN of the system never come up: they are tried again, a
//     bounded number of times where nothing moves.
//  4. Buffers belong to the request until its result is out. The destructor waits for what is in flight.
//  5. `wait` sleeps in the kernel. It never spins, and returns at once after `wake`. One of no time does not sleep.
// Thread safety: one thread calls all members; `wake` is for any thread. It need not be the thread that made the
// engine; the one that first calls `wait` stays the one, also for the destructor unless nothing is in flight.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "storage/file_system.h"

namespace flexkv {

struct DiskRequest {
  std::uint64_t tag = 0;  // comes back with the result; unique among those in flight
  File* file = nullptr;
  bool is_write = false;
  std::uint64_t offset = 0;
  std::vector<iovec> buffers;  // not empty, none of length 0; aligned to 4 KiB where the file is direct
};

struct DiskResult {
  std::uint64_t tag = 0;
  int error = 0;  // 0, or an errno
};

class DiskIo {
 public:
  DiskIo() = default;
  virtual ~DiskIo() = default;
  DiskIo(const DiskIo&) = delete;
  DiskIo& operator=(const DiskIo&) = delete;

  [[nodiscard]] virtual const char* name() const = 0;  // "io_uring" or "threads"
  [[nodiscard]] virtual unsigned depth() const = 0;    // the most that can be in flight
  [[nodiscard]] virtual unsigned in_flight() const = 0;
  // Memory that requests will use, so that the kernel need not look it up each time. REQUIRES: it is there
  // (prefaulted), and stays until the destructor. Only a hint: false when it is not taken (locked memory is short, no
  // such engine).
  [[nodiscard]] virtual bool add_buffer(const iovec& memory) = 0;
  // Queues a request; `wait` starts what is queued, all at once. REQUIRES: in_flight() < depth(). Never fails: what
  // cannot be started has a result with the errno.
  virtual void submit(DiskRequest request) = 0;
  // Starts what is queued and appends the results there are, after waiting for one, at most `timeout_s`. With nothing
  // in flight it waits for `wake`.
  virtual void wait(std::vector<DiskResult>& results, double timeout_s) = 0;
  virtual void wake() = 0;  // from any thread: the current or the next `wait` returns
};

struct DiskIoConfig {
  unsigned depth = 32;       // 1 .. 1024
  unsigned num_threads = 4;  // of the thread engine
  std::vector<File*> files;  // those of all requests to come
};

// "io_uring": throws std::system_error where the kernel refuses it (containers often do) or a file has no descriptor.
// "threads": throws std::system_error when no thread can be had. "auto": io_uring, else threads; `why_not` then says
// why not io_uring. std::invalid_argument on another name.
[[nodiscard]] std::unique_ptr<DiskIo> make_disk_io(const std::string& name, const DiskIoConfig& config,
                                                   std::string& why_not);

}  // namespace flexkv
