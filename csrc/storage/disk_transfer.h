// DiskTransfer: one request on its way through a disk engine: what is left to be moved, and what an answer of the
// system means. Both engines go by it, so that both mean the same by short, interrupted and ended.
//
//   started -> answer -> more (ask again for `rest` at `offset`) -> ... -> done (error)
//
// Direct files move whole pages: after an answer within a page they go on from its start, and a read that stops within
// one page again and again has met the end of the file. Thread safety: none; one thread at a time.
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "storage/disk_io.h"

namespace flexkv {

class DiskTransfer {
 public:
  enum class Step : std::uint8_t { more, done };
  // Answers in a row that move nothing, before it is given up with EIO (the end of a file: ENODATA).
  static constexpr int max_idle_answers = 1000;  // a disk that others keep busy may say EAGAIN for a while

  DiskTransfer() = default;
  explicit DiskTransfer(DiskRequest request) : request_(std::move(request)), offset_(request_.offset) {
    skip_empty();
    if (offset_ <= max_offset) return;  // io_uring gives some of these a meaning of its own
    first_ = request_.buffers.size();
    error_ = EINVAL;
  }

  [[nodiscard]] std::uint64_t tag() const { return request_.tag; }
  [[nodiscard]] File* file() const { return request_.file; }
  [[nodiscard]] bool is_write() const { return request_.is_write; }
  [[nodiscard]] std::uint64_t offset() const { return offset_; }
  [[nodiscard]] std::span<const iovec> rest() const { return std::span(request_.buffers).subspan(first_); }
  // Nothing is left to be asked for; from the start when there is nothing that could be.
  [[nodiscard]] bool is_complete() const { return first_ == request_.buffers.size(); }
  [[nodiscard]] int error() const { return error_; }

  // `answer`: bytes moved, or -errno.
  Step take(std::int64_t answer) {
    if (answer > 0) return advance(static_cast<std::uint64_t>(answer));
    if (answer == 0 && !is_write()) return end(ENODATA);
    if (answer == 0 || answer == -EINTR || answer == -EAGAIN || answer == -EBUSY) return idle();
    return end(static_cast<int>(-answer));
  }

 private:
  static constexpr std::uint64_t page_bytes = 4096;
  static constexpr std::uint64_t max_offset = std::numeric_limits<std::int64_t>::max();

  Step end(int error) {
    error_ = error;
    return Step::done;
  }
  Step idle() {
    if (++idle_answers_ < max_idle_answers) return Step::more;
    return end(stops_within_page_ && !is_write() ? ENODATA : EIO);
  }

  Step advance(std::uint64_t moved) {
    if (moved > rest_bytes()) return end(EIO);  // no system does that; nothing after it can be believed
    if (request_.file->is_direct()) moved -= moved % page_bytes;
    stops_within_page_ = moved == 0;
    if (moved == 0) return idle();
    idle_answers_ = 0;
    offset_ += moved;
    while (moved > 0) {
      iovec& buffer = request_.buffers[first_];
      const std::uint64_t part = std::min<std::uint64_t>(moved, buffer.iov_len);
      buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + part;
      buffer.iov_len -= part;
      moved -= part;
      skip_empty();
    }
    return is_complete() ? end(0) : Step::more;
  }

  [[nodiscard]] std::uint64_t rest_bytes() const {
    std::uint64_t bytes = 0;
    for (const iovec& buffer : rest()) bytes += buffer.iov_len;
    return bytes;
  }

  void skip_empty() {
    while (first_ < request_.buffers.size() && request_.buffers[first_].iov_len == 0) ++first_;
  }

  DiskRequest request_;
  std::size_t first_ = 0;  // buffers before it are done
  std::uint64_t offset_ = 0;
  int idle_answers_ = 0;
  bool stops_within_page_ = false;  // the last answer that moved bytes did not complete a page
  int error_ = 0;
};

}  // namespace flexkv
