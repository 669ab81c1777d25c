// Planes in this process's memory, host slots, and a GPU backend between them, over a CUDA driver in software.
#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "cuda/gpu_backend.h"
#include "cuda/gpu_copier.h"
#include "tests/choices.h"
#include "tests/fake_cuda.h"
#include "transfer/host_pool.h"

namespace flexkv::cuda {

using protocol::Direction;
using Ids = std::vector<std::int64_t>;

// first, first + 1, ...
inline Ids numbered(std::int64_t first, std::size_t count) {
  Ids ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

inline std::vector<std::byte> random_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::mt19937_64 random(1);
  std::ranges::generate(bytes, [&random] { return static_cast<std::byte>(random()); });
  return bytes;
}

struct LastMark final : PartSink {
  void part_issued(std::uint64_t /*end_bytes*/, CopyMark mark) override { last = mark; }
  CopyMark last{};
};

class GpuRig {
 public:
  static constexpr TunerLimits small = {std::chrono::milliseconds(150), 1 << 20, 1 << 20};

  GpuRig(FakeCuda& cuda, Choices& choices, std::vector<std::uint64_t> chunks, std::uint64_t num_blocks,
         std::int64_t num_slots, std::uint64_t gap = 0, bool in_one_tensor = false, const TunerLimits& limits = small);

  // The host's memory is registered from now on, and the mechanisms are measured or it is said why not.
  void use_host();
  void leave_host() { registration_.reset(); }

  void randomize();

  std::uint64_t copy(Direction direction, const Ids& slots, const Ids& blocks, std::uint64_t after_step = 0) {
    return (direction == Direction::load ? loads_ : stores_)->copy(shard_, slots, blocks, after_step);
  }

  // A copy of random bytes: afterwards every byte is what it should be, and nothing is still on its way.
  void copy_and_check(Direction direction, const Ids& slots, const Ids& blocks);

  std::uint64_t copy_part(Direction direction, const Ids& slots, const Ids& blocks, const SlotPart& part) {
    return gpu_copier(direction).copy_part(shard_, slots, blocks, part, 0);
  }
  std::uint64_t copy_in_parts(const Ids& slots, const Ids& blocks, PartSink& sink, std::uint64_t after_step = 0) {
    return loads_->copy_in_parts(shard_, slots, blocks, after_step, sink);
  }
  [[nodiscard]] MechanismKind mechanism_for(Direction direction, const Ids& slots) {
    return gpu_copier(direction).mechanism_for(shard_, slots);
  }
  [[nodiscard]] const BlockMap& map() { return gpu_copier(Direction::load).map(); }

  // Pieces of random bytes, each from a place of its own: a sanitizer would watch a generator at each word.
  void fill(std::vector<std::byte>& bytes);

  struct Contents {
    std::vector<std::vector<std::byte>> tensors;
    std::vector<std::byte> host;
  };
  [[nodiscard]] Contents contents() const;
  // Of a Contents, or of what is there now.
  struct ContentsView {
    std::span<const std::vector<std::byte>> tensors;
    std::span<const std::byte> host;
  };
  [[nodiscard]] ContentsView now() const { return {tensors_, host_}; }
  // What a copy of these would make of `from`.
  void expect(Contents& to, const ContentsView& from, Direction direction, const Ids& slots, const Ids& blocks) const {
    expect(to, from, direction, slots, blocks, 0, layout_.slot_bytes());
  }
  // The same of the bytes [begin, end) of each slot.
  void expect(Contents& to, const ContentsView& from, Direction direction, const Ids& slots, const Ids& blocks,
              std::uint64_t begin, std::uint64_t end) const;
  // The bytes between the end of a block and that of its slot may be anything.
  void check(const Contents& want) const;

  [[nodiscard]] Ids some(std::uint64_t count, std::uint64_t end, bool in_a_run);

  GpuBackend& backend() { return *backend_; }
  [[nodiscard]] const HostShard& shard() const { return shard_; }
  [[nodiscard]] std::byte* block(std::size_t plane, std::uint64_t number) const;
  [[nodiscard]] const std::byte* slot(std::uint64_t number) const { return host_.data() + number * stride_; }

 private:
  static std::uint64_t aligned(const std::vector<std::byte>& tensor) {
    return (reinterpret_cast<std::uintptr_t>(tensor.data()) + 63) / 64 * 64;
  }
  // std::equal would compare std::byte one by one.
  static bool are_equal(const std::byte* a, const std::byte* b, std::size_t count) {
    return std::memcmp(a, b, count) == 0;
  }
  GpuCopier& gpu_copier(Direction direction) {
    return static_cast<GpuCopier&>(direction == Direction::load ? *loads_ : *stores_);
  }

  FakeCuda& cuda_;
  Choices& choices_;
  const bool in_one_tensor_;
  DeviceLayout layout_;
  std::vector<std::vector<std::byte>> tensors_;
  std::vector<std::byte> host_;
  std::uint64_t stride_ = 0;
  HostShard shard_;
  std::unique_ptr<GpuBackend> backend_;
  std::unique_ptr<BlockCopier> loads_;
  std::unique_ptr<BlockCopier> stores_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_registered_ = false;  // guarded by mutex_
  std::unique_ptr<HostRegistration> registration_;
};

}  // namespace flexkv::cuda
