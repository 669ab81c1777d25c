// How long copies by several mechanisms take that take turns, so that what changes meanwhile changes for all of them.
//
// Whatever else a host does makes single copies longer and none shorter, on one that is shared by a half and more: the
// figure is the least time, and turns go on until each mechanism has nearly reached its own twice more, or the most are
// over. On a still host the fewest do. Pure, but for `sample` and `is_over`.
#pragma once
#include <array>
#include <functional>
#include <optional>

#include "cuda/copy_choices.h"

namespace flexkv::cuda {

using AreIn = std::array<bool, num_mechanisms>;

inline constexpr int least_turns = 3;
inline constexpr int most_turns = 15;

// Microseconds of one copy; none when something ran beside it.
using CopySample = std::function<std::optional<double>(MechanismKind)>;

// The figures of all of whose copies two counted at least. One that takes twice the time of the fastest takes no more
// turns and is not in afterwards, unless it is the usual one. None when it is over before turns have ended. Throws what
// `sample` does.
[[nodiscard]] std::optional<CellFigures> times_in_turns(AreIn& are_in, MechanismKind usual, const CopySample& sample,
                                                        const std::function<bool()>& is_over);

}  // namespace flexkv::cuda
