// Planes in this process's memory, host slots, and a GPU backend between them, over a CUDA driver in software.
#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "cuda/gpu_backend.h"
#include "cuda/gpu_copier.h"
#include "tests/check.h"
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

class GpuRig {
 public:
  static constexpr TunerLimits small = {std::chrono::milliseconds(150), 1 << 20, 1 << 20};

  GpuRig(FakeCuda& cuda, Choices& choices, std::vector<std::uint64_t> chunks, std::uint64_t num_blocks,
         std::int64_t num_slots, std::uint64_t gap = 0, bool in_one_tensor = false, const TunerLimits& limits = small)
      : cuda_(cuda), choices_(choices), in_one_tensor_(in_one_tensor) {
    layout_.num_blocks = num_blocks;
    std::uint64_t all_bytes = 0;
    for (const std::uint64_t chunk : chunks) all_bytes += num_blocks * (chunk + gap);
    if (in_one_tensor_) tensors_.emplace_back(all_bytes + 64);
    std::uint64_t base = in_one_tensor_ ? aligned(tensors_.back()) : 0;
    for (const std::uint64_t chunk : chunks) {
      if (!in_one_tensor_) {
        tensors_.emplace_back(num_blocks * (chunk + gap) + 64);
        base = aligned(tensors_.back());
        cuda.add_allocation(base, base + num_blocks * (chunk + gap));  // however near the next one lies
      }
      layout_.planes.push_back({base, chunk + gap, chunk});
      base += num_blocks * (chunk + gap);
      layout_.layer_ends.push_back(layout_.slot_bytes());
    }
    stride_ = slot_stride_bytes(layout_.slot_bytes());
    host_.resize(static_cast<std::size_t>(num_slots) * stride_);
    shard_ = {host_.data(), stride_, num_slots};
    backend_ = std::make_unique<GpuBackend>(cuda.api(), layout_, limits);
    loads_ = backend_->make_copier(Direction::load);
    stores_ = backend_->make_copier(Direction::store);
    randomize();
  }

  // The host's memory is registered from now on, and the mechanisms are measured or it is said why not.
  void use_host() {
    std::unique_lock lock(mutex_);
    is_registered_ = false;
    registration_ = backend_->use_host(shard_, [this](const HostProgress& progress) {
      const std::lock_guard progress_lock(mutex_);
      is_registered_ = progress.num_slots == shard_.num_slots;
      changed_.notify_all();
    });
    CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [this] { return is_registered_; }));
    CHECK(backend_->choices().wait_settled(60));
  }
  void leave_host() { registration_.reset(); }

  void randomize() {
    for (auto& tensor : tensors_) fill(tensor);
    fill(host_);
  }

  std::uint64_t copy(Direction direction, const Ids& slots, const Ids& blocks, std::uint64_t after_step = 0) {
    return (direction == Direction::load ? loads_ : stores_)->copy(shard_, slots, blocks, after_step);
  }

  // A copy of random bytes: afterwards every byte is what it should be, and nothing is still on its way.
  void copy_and_check(Direction direction, const Ids& slots, const Ids& blocks) {
    randomize();
    auto want = contents();
    expect(want, now(), direction, slots, blocks);
    CHECK(copy(direction, slots, blocks) == slots.size() * layout_.slot_bytes());
    CHECK(cuda_.is_idle());
    check(want);
  }

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
  void fill(std::vector<std::byte>& bytes) {
    static const std::vector<std::byte> random = random_bytes(std::size_t{64} << 10);
    constexpr std::size_t piece_bytes = 4096;
    for (std::size_t at = 0; at < bytes.size(); at += piece_bytes) {
      const std::size_t count = std::min(piece_bytes, bytes.size() - at);
      std::memcpy(bytes.data() + at, random.data() + choices_.below(random.size() - count + 1), count);
    }
  }

  struct Contents {
    std::vector<std::vector<std::byte>> tensors;
    std::vector<std::byte> host;
  };
  [[nodiscard]] Contents contents() const { return {tensors_, host_}; }
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
              std::uint64_t begin, std::uint64_t end) const {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::uint64_t slot = static_cast<std::uint64_t>(slots[i]) * stride_;
      std::uint64_t chunk = 0;  // where in the slot the plane's chunk begins
      for (std::size_t p = 0; p < layout_.planes.size(); ++p) {
        const Plane& plane = layout_.planes[p];
        const std::uint64_t first = std::max(begin, chunk);
        const std::uint64_t last = std::min(end, chunk + plane.chunk_bytes);
        const std::size_t tensor = in_one_tensor_ ? 0 : p;
        const std::uint64_t skew = plane.base - reinterpret_cast<std::uintptr_t>(tensors_[tensor].data());
        const std::uint64_t block = skew + static_cast<std::uint64_t>(blocks[i]) * plane.block_stride_bytes;
        if (first < last && direction == Direction::load) {
          std::copy_n(from.host.data() + slot + first, last - first, to.tensors[tensor].data() + block + first - chunk);
        } else if (first < last) {
          std::copy_n(from.tensors[tensor].data() + block + first - chunk, last - first, to.host.data() + slot + first);
        }
        chunk += plane.chunk_bytes;
      }
    }
  }
  // The bytes between the end of a block and that of its slot may be anything.
  void check(const Contents& want) const {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      CHECK(are_equal(tensors_[i].data(), want.tensors[i].data(), tensors_[i].size()));
    }
    for (std::int64_t slot = 0; slot < shard_.num_slots; ++slot) {
      const std::uint64_t at = static_cast<std::uint64_t>(slot) * stride_;
      CHECK(are_equal(host_.data() + at, want.host.data() + at, layout_.slot_bytes()));
    }
  }

  [[nodiscard]] Ids some(std::uint64_t count, std::uint64_t end, bool in_a_run) {
    Ids ids = numbered(0, end);
    if (in_a_run) {
      const std::uint64_t first = choices_.below(end - count + 1);
      return {ids.begin() + static_cast<std::ptrdiff_t>(first),
              ids.begin() + static_cast<std::ptrdiff_t>(first + count)};
    }
    choices_.shuffle(ids);
    ids.resize(count);
    return ids;
  }

  GpuBackend& backend() { return *backend_; }
  [[nodiscard]] const HostShard& shard() const { return shard_; }
  [[nodiscard]] std::byte* block(std::size_t plane, std::uint64_t number) const {
    const Plane& where = layout_.planes[plane];
    return reinterpret_cast<std::byte*>(where.base + number * where.block_stride_bytes);
  }
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
