#include "cuda/host_runs.h"

#include <algorithm>

namespace flexkv::cuda {
namespace {

constexpr std::uint64_t piece_bytes = std::uint64_t{64} << 20;

}  // namespace

std::int64_t slots_per_piece(std::uint64_t stride_bytes) {
  return static_cast<std::int64_t>(std::max<std::uint64_t>(1, piece_bytes / stride_bytes));
}

}  // namespace flexkv::cuda
