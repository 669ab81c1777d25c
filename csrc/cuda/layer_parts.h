// In which parts a load by layers copies its slots. Pure.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/block_map.h"

namespace flexkv::cuda {

// The parts of a slot, in order, for a load of these slots: each ends with a layer, or with the unit in which one ends.
// Shorter pieces are slower to copy, so that a part is the longer the shorter the runs of adjacent slots are; and a
// load of few blocks has few parts. REQUIRES: there is at least one slot.
[[nodiscard]] std::vector<SlotPart> layer_parts(const BlockMap& map, std::span<const std::int64_t> slots,
                                                std::int64_t slots_per_piece);

}  // namespace flexkv::cuda
