// Array results of the bindings: vectors handed over to numpy without a copy. And how signatures name arrays.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cache/prefix_index.h"

#define SLOTS "numpy.typing.NDArray[numpy.int64]"
#define KEYS "numpy.typing.NDArray[numpy.uint8]"
#define SLOTS_TO_NONE(name) "def " name "(self, slots: " SLOTS ") -> None"

namespace flexkv {

using SlotArray = nanobind::ndarray<nanobind::numpy, std::int64_t, nanobind::ndim<1>>;
using RunArray = nanobind::ndarray<nanobind::numpy, std::int64_t, nanobind::shape<-1, 2>>;
using KeyArray = nanobind::ndarray<nanobind::numpy, std::uint8_t, nanobind::shape<-1, 16>>;

// A capsule that owns the vector.
template <typename T>
std::pair<T*, nanobind::capsule> hand_over(std::vector<T>&& values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owned->data();
  nanobind::capsule owner(owned.get(), [](void* held) noexcept { delete static_cast<std::vector<T>*>(held); });
  (void)owned.release();  // the capsule's now
  return {data, std::move(owner)};
}

inline SlotArray to_array(std::vector<SlotId>&& slots) {
  const std::size_t size = slots.size();
  auto [data, owner] = hand_over(std::move(slots));
  return SlotArray(data, {size}, owner);
}

template <typename T>
nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>> to_column(std::vector<T>&& values) {
  const std::size_t size = values.size();
  auto [data, owner] = hand_over(std::move(values));
  return nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>>(data, {size}, owner);
}

inline RunArray to_array(std::vector<SlotRun> runs) {
  static_assert(sizeof(SlotRun) == 2 * sizeof(std::int64_t));
  const std::size_t size = runs.size();
  auto [data, owner] = hand_over(std::move(runs));
  return RunArray(reinterpret_cast<std::int64_t*>(data), {size, 2}, owner);
}

inline KeyArray to_array(std::vector<BlockKey>&& keys) {
  const std::size_t size = keys.size();
  auto [data, owner] = hand_over(std::move(keys));
  return KeyArray(reinterpret_cast<std::uint8_t*>(data), {size, sizeof(BlockKey)}, owner);
}

}  // namespace flexkv
