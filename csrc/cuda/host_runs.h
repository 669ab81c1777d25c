// Which slots of the host's memory one copy may go over. Pure.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace flexkv::cuda {

// Host memory is registered with the driver in pieces of so many slots; no copy may reach over from one to the next.
[[nodiscard]] std::int64_t slots_per_piece(std::uint64_t stride_bytes);

// Whether one copy may go on from a slot to another.
[[nodiscard]] inline bool follows(std::int64_t slot, std::int64_t next, std::int64_t per_piece) {
  return next == slot + 1 && next % per_piece != 0;
}

// The end of the run of adjacent slots that begins at index `begin`. REQUIRES: there is one.
[[nodiscard]] inline std::size_t end_of_run(std::span<const std::int64_t> slots, std::size_t begin,
                                            std::int64_t per_piece) {
  std::size_t end = begin + 1;
  while (end < slots.size() && follows(slots[end - 1], slots[end], per_piece)) ++end;
  return end;
}

}  // namespace flexkv::cuda
