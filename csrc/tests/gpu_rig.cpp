#include "tests/gpu_rig.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/gpu_backend.h"
#include "cuda/gpu_copier.h"
#include "tests/check.h"
#include "tests/choices.h"
#include "tests/fake_cuda.h"
#include "tests/unwatched.h"
#include "transfer/host_pool.h"

namespace flexkv::cuda {

GpuRig::GpuRig(FakeCuda& cuda, Choices& choices, std::vector<std::uint64_t> chunks, std::uint64_t num_blocks,
               std::int64_t num_slots, std::uint64_t gap, bool in_one_tensor, const TunerLimits& limits)
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

void GpuRig::use_host() {
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

void GpuRig::randomize() {
  for (auto& tensor : tensors_) fill(tensor);
  fill(host_);
}

void GpuRig::copy_and_check(Direction direction, const Ids& slots, const Ids& blocks) {
  randomize();
  auto want = contents();
  expect(want, now(), direction, slots, blocks);
  CHECK(copy(direction, slots, blocks) == slots.size() * layout_.slot_bytes());
  CHECK(cuda_.is_idle());
  check(want);
}

void GpuRig::fill(std::vector<std::byte>& bytes) {
  const Unwatched unwatched;
  static const std::vector<std::byte> random = random_bytes(std::size_t{64} << 10);
  constexpr std::size_t piece_bytes = 4096;
  for (std::size_t at = 0; at < bytes.size(); at += piece_bytes) {
    const std::size_t count = std::min(piece_bytes, bytes.size() - at);
    std::memcpy(bytes.data() + at, random.data() + choices_.below(random.size() - count + 1), count);
  }
}

GpuRig::Contents GpuRig::contents() const {
  const Unwatched unwatched;
  return {tensors_, host_};
}

void GpuRig::expect(Contents& to, const ContentsView& from, Direction direction, const Ids& slots, const Ids& blocks,
                    std::uint64_t begin, std::uint64_t end) const {
  const Unwatched unwatched;
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

void GpuRig::check(const Contents& want) const {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    CHECK(are_equal(tensors_[i].data(), want.tensors[i].data(), tensors_[i].size()));
  }
  for (std::int64_t slot = 0; slot < shard_.num_slots; ++slot) {
    const std::uint64_t at = static_cast<std::uint64_t>(slot) * stride_;
    CHECK(are_equal(host_.data() + at, want.host.data() + at, layout_.slot_bytes()));
  }
}

Ids GpuRig::some(std::uint64_t count, std::uint64_t end, bool in_a_run) {
  Ids ids = numbered(0, end);
  if (in_a_run) {
    const std::uint64_t first = choices_.below(end - count + 1);
    return {ids.begin() + static_cast<std::ptrdiff_t>(first), ids.begin() + static_cast<std::ptrdiff_t>(first + count)};
  }
  choices_.shuffle(ids);
  ids.resize(count);
  return ids;
}

std::byte* GpuRig::block(std::size_t plane, std::uint64_t number) const {
  const Plane& where = layout_.planes[plane];
  return reinterpret_cast<std::byte*>(where.base + number * where.block_stride_bytes);
}

}  // namespace flexkv::cuda
